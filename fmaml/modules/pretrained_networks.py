"""Networks of `timm`, of `torchvision`, and of your own code, for the settings of an experiment.

A network of both libraries gets a new linear layer ``head`` on its features. Parameters not in ``trainable`` are
frozen: held once for all tasks, outside theta.
"""

import contextlib
import difflib
import functools
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, Literal, cast

import torch
from torch import Generator, Tensor, nn

from ..extras import imported, require
from ..nn.layers import linear_init
from ..torch_fixes.unsupported_layers import RunningStats
from ..types import Model, Params
from .from_module import from_module
from .pretrained_weights import check_is_file, check_was_read, downloaded, explained, overlay, packaged_weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def timm(
    *,
    inputs: tuple[int, ...],
    outputs: int,
    network: str,
    weights: str | None = None,
    pretrained: bool = False,
    trainable: Sequence[str] = ("*",),
    statistics: Literal["batch", "frozen"] = "frozen",
) -> Model:
    """A network of timm, pretrained or not: [n, C, H, W] in [0, 1] -> [n, outputs].

    Args:
        inputs: (channels, height, width) of an image.
        outputs: the number of classes.
        network: its name in timm, such as "resnet18".
        weights: the file of its pretrained weights, a state_dict (.safetensors, .pth); null: random weights, unless
            ``pretrained``. Other names than timm's are accepted if shapes and kinds agree in order.
        pretrained: read timm's weights of this network: from an installed package that holds them, else by timm's own
            loader.
        trainable: patterns of the names of learnt parameters, such as ``["head.*"]``; all others are frozen.
        statistics: the statistics of batch norm: those of the current batch ("batch") or the stored ones ("frozen").

    Returns:
        A model that normalises images as in pretraining. Its parameters are those of timm under ``backbone.``, and a
        new head.weight, head.bias.

    Raises:
        Error: timm is not installed.
        ValueError: there is no such network, the weights are not its own, or they cannot be downloaded.
    """
    whole = timm_network(inputs, outputs, network, weights, pretrained)
    return learnt_from(whole, inputs, outputs, trainable, statistics)


def timm_network(
    inputs: tuple[int, ...], outputs: int, network: str, weights: str | None, pretrained: bool
) -> "WithHead":
    """The network with this name, its weights and a new head; arguments as in `timm`."""
    require("model.name = timm", "timm", "timm")
    library: Any = import_module("timm")
    if network not in library.list_models():
        raise ValueError(f"network = {network}: timm has none of that name; {nearest(network, library.list_models())}")
    weights = packaged_weights(network) if pretrained and weights is None else weights
    if weights is not None:
        check_is_file(weights)
    changed = weights and os.stat(weights).st_mtime_ns
    backbone: Any = timm_backbone(network, inputs[0], weights, changed, pretrained)
    mean, std = (tuple(backbone.pretrained_cfg[key])[: inputs[0]] for key in ("mean", "std"))
    return with_new_head(network, backbone, mean, std, inputs, outputs)


@functools.lru_cache(maxsize=1)  # one adaptation builds it several times
def timm_backbone(network: str, channels: int, weights: str | None, changed: int | None, pretrained: bool) -> nn.Module:
    """The network without its head, for images of so many channels; ``changed`` is the time of the file's last change.

    It is shared: callers copy it before any change.
    """
    library: Any = import_module("timm")
    settings: dict[str, Any] = {"num_classes": 0, "in_chans": channels}
    with building():
        if weights is None:
            return (downloaded if pretrained else library.create_model)(network, **settings)
        drawn = library.create_model(network, **settings)
        with explained(weights):
            read = overlay(weights, library.create_model(network))
            torch.manual_seed(0)
            backbone: Any = library.create_model(network, **settings, pretrained=True, pretrained_cfg_overlay=read)
        backbone.pretrained_cfg.pop("state_dict", None)  # a copy of all weights
        check_was_read(backbone, drawn, weights)
        return backbone


def torchvision(
    *,
    inputs: tuple[int, ...],
    outputs: int,
    network: str,
    weights: str | None = None,
    trainable: Sequence[str] = ("*",),
    statistics: Literal["batch", "frozen"] = "frozen",
) -> Model:
    """A network of torchvision, pretrained if you give its weights: [n, 3, H, W] in [0, 1] -> [n, outputs].

    Args:
        inputs: (3, height, width) of an image.
        outputs, trainable, statistics: as in `timm`.
        network: its name in torchvision, such as "resnet18".
        weights: the file of its pretrained weights, a state_dict; null: random weights.

    Returns:
        As in `timm`.

    Raises:
        Error: torchvision is not installed.
        ValueError: there is no such network, the weights are not its own, or images do not have three channels.
    """
    whole = torchvision_network(inputs, outputs, network, weights)
    return learnt_from(whole, inputs, outputs, trainable, statistics)


def torchvision_network(inputs: tuple[int, ...], outputs: int, network: str, weights: str | None) -> "WithHead":
    """The network with this name, its weights and a new head; arguments as in `torchvision`."""
    require("model.name = torchvision", "torchvision", "torchvision")
    library: Any = import_module("torchvision").models
    if network not in library.list_models(module=library):
        names = library.list_models(module=library)
        raise ValueError(f"network = {network}: torchvision has none of that name; {nearest(network, names)}")
    if inputs[0] != 3:
        raise ValueError(f"images have {inputs[0]} channels, and torchvision's networks take 3; give data.channels=3")
    with building():
        backbone: nn.Module = library.get_model(network, weights=None)
        if weights is not None:
            check_is_file(weights)
            with explained(weights):
                backbone.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        without_head(backbone, network)
    return with_new_head(network, backbone, IMAGENET_MEAN, IMAGENET_STD, inputs, outputs)


def module(
    *,
    inputs: tuple[int, ...],
    outputs: int,
    module: str,
    arguments: dict = {},  # noqa: B006  # a literal, since signatures are read without running them
    trainable: Sequence[str] = ("*",),
    statistics: Literal["batch", "frozen"] = "batch",
) -> Model:
    """Your own network: an `nn.Module` that a function of your code returns.

    Args:
        inputs: the shape of one example.
        outputs: the number of outputs.
        module: the place of the function, such as ``mypackage.networks:make``. It is imported and called.
        arguments: the function's arguments; it also gets ``inputs`` and ``outputs``, if it has parameters with these
            names.
        trainable, statistics: as in `timm`.

    Returns:
        The model that `fmaml.from_module` makes from it.

    Raises:
        ValueError: there is no such function, it cannot be called with these arguments, or it returns no `nn.Module`.
    """
    made = own_network(inputs, outputs, module, arguments)
    return from_module(made, trainable=trainable, running_stats=statistics)


def own_network(inputs: tuple[int, ...], outputs: int, module: str, arguments: dict[str, Any]) -> nn.Module:
    """The module that the user's function returns; arguments as in `module`."""
    with building():
        return call_function(module, arguments, {"inputs": inputs, "outputs": outputs})


def call_function(target: str, arguments: dict[str, Any], offered: dict[str, Any]) -> nn.Module:
    """The module that the function ``package.module:name`` returns; ValueError if it is not a module."""
    try:
        function: Callable[..., Any] = imported(target)
    except ImportError as error:
        raise ValueError(f"module = {target}: {error}; give package.module:function, which Python can import") from None
    parameters = inspect.signature(function).parameters
    supplied = {key: value for key, value in offered.items() if key in parameters}
    try:
        made = function(**{**supplied, **arguments})
    except TypeError as error:
        raise ValueError(f"module = {target}: {error}; give model.arguments that it takes") from error
    if not isinstance(made, nn.Module):
        raise ValueError(f"module = {target}: returned {type(made).__name__}; it must return a torch.nn.Module")
    return made


class WithHead(nn.Module):
    """A backbone on normalised images in [0, 1], and a linear head."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, mean: Sequence[float], std: Sequence[float], head: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, C, H, W] -> [n, outputs]."""
        return self.head(self.backbone((images - self.mean) / self.std))


def with_new_head(
    network: str,
    backbone: nn.Module,
    mean: Sequence[float],
    std: Sequence[float],
    inputs: tuple[int, ...],
    outputs: int,
) -> WithHead:
    """The backbone, which returns features, with a head for ``outputs`` classes; ValueError if images do not fit."""
    with building(), torch.no_grad():
        try:
            width = backbone.eval()(torch.zeros(2, *inputs)).shape[1]
        except Exception as error:  # layers of the libraries raise errors of any kind
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"network = {network}: takes no images of {list(inputs)} ({reason}); give the size that it was made "
                f"for, such as data.size=224, or name another"
            ) from None
        return WithHead(backbone, mean, std, nn.Linear(width, outputs)).eval()


def learnt_from(
    whole: WithHead, inputs: tuple[int, ...], outputs: int, trainable: Sequence[str], statistics: RunningStats
) -> Model:
    """The model of a network with a head; each ``init`` draws a new head."""
    model = from_module(whole, trainable=trainable, running_stats=statistics)

    def init(generator: Generator) -> Params:
        params = model.init(generator)
        drawn = linear_init("head", whole.head.in_features, outputs, generator)
        return {name: drawn.get(name, value) for name, value in params.items()}

    return Model(init, model.apply)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "timm": timm_network,
    "torchvision": torchvision_network,
    "module": own_network,
}


def network_of(settings: dict[str, Any], inputs: tuple[int, ...], outputs: int) -> nn.Module | None:
    """The module of the section ``model`` of a config, as a new one; None if that names no module."""
    if settings["name"] not in NETWORKS:
        return None
    own = {key: value for key, value in settings.items() if key not in ("name", "trainable", "statistics")}
    return NETWORKS[settings["name"]](inputs=inputs, outputs=outputs, **own)


def without_head(backbone: nn.Module, network: str) -> None:
    """Replace the last linear layer, the head, by the identity; ValueError if there is none."""
    linear = [name for name, layer in backbone.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError(f"network = {network}: its head is no linear layer and cannot be replaced; name another")
    name = linear[-1]
    parent, _, last = name.rpartition(".")
    setattr(backbone.get_submodule(parent), last, nn.Identity())


@contextlib.contextmanager
def building() -> Iterator[None]:
    """Build on the CPU, even if the caller needs only shapes, and with the same random numbers each time."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def nearest(name: str, names: list[str]) -> str:
    """The most similar names, for a message."""
    return f"the nearest are {', '.join(cast(list[str], difflib.get_close_matches(name, names, 3, 0)))}"
