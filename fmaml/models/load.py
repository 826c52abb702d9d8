"""`fmaml.load`: a learner from a model file, a run folder, or a model that comes with fmaml."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..calibration import read_calibration
from ..data.images.decode import WHITE
from ..errors import Error
from ..torch_fixes.support_statistics import Statistics
from .blueprint import Blueprint, fill_theta, read_blueprint
from .find_model import find_model
from .kept_support import read_kept
from .learner import Adapted, Learner
from .model_file import Metadata, read_model
from .pretrained import is_pretrained, pretrained_learner


def load(model: str | Path, *, trust: bool = False) -> Learner:
    """Load a meta-trained model that can learn new tasks.

    Args:
        model: a model file, a run folder (its best parameters), or the name of a model that comes with fmaml, see
            ``fmaml ls models``. Or ``timm:NETWORK``, a network of timm pretrained on ImageNet, with ridge regression.
        trust: import code outside fmaml if the model names it as its network or its algorithm.

    Returns:
        The learner.

    Raises:
        Error: there is no such model, or it is damaged, of another format, an adapted network, or adapts by a loss
            of its source. Or it names code outside fmaml, without ``trust``.

    >>> import torch, fmaml
    >>> learner = fmaml.load("sinusoid")
    >>> x = torch.linspace(-5, 5, 10)[:, None]
    >>> adapted = learner.adapt(x, 2 * torch.sin(x - 1))
    >>> adapted.outputs(torch.tensor([[0.5]])).shape
    torch.Size([1, 1])
    """
    learner = load_for_test(model, trust=trust)
    if learner.blueprint.targets == "own_loss":
        raise Error(
            f"{find_model(model)}: it adapts by a loss of its data, not by examples with targets; "
            f"evaluate it with fmaml test, or train from it with train.start"
        )
    return learner


def load_for_test(model: str | Path, *, trust: bool = False) -> Learner:
    """Like `load`, but also for models that adapt by the loss of their source. These can be tested alone."""
    if is_pretrained(model):
        return pretrained_learner(str(model))
    path = find_model(model)
    tensors, metadata, blueprint = _read(path, trust)
    if metadata.get("kind") == "stream":
        raise Error(f"{path}: the state of a stream; fmaml.load(MODEL).stream({str(path)!r}) continues it")
    if metadata.get("kind") != "learner":
        raise Error(
            f"{path}: a network that is adapted already; `fmaml predict {path} PICTURES` uses it, and so does "
            f"fmaml.load_adapted in a script"
        )
    try:
        template = blueprint.template(blueprint.outputs)
    except ValueError as error:  # such as a name in `only` that no parameter has
        raise Error(f"{path}: its metadata are not those of a model ({error})") from None
    theta = fill_theta(template, tensors, str(path))
    return Learner(metadata, blueprint, theta)


def load_adapted(path: str | Path, *, trust: bool = False) -> Adapted:
    """Load a network that `fmaml.Adapted.save` or ``fmaml adapt`` has written.

    Args:
        path: the file.
        trust: as in `load`.

    Raises:
        Error: the file is missing, damaged, of another format, or a learner. Or it names code outside fmaml, without
            ``trust``.

    >>> import tempfile, torch, fmaml
    >>> adapted = fmaml.load("omniglot").adapt({"a": torch.rand(1, 1, 28, 28), "b": torch.rand(1, 1, 28, 28)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     adapted.save(f"{folder}/mine.safetensors")
    ...     fmaml.load_adapted(f"{folder}/mine.safetensors").classes
    ['a', 'b']
    """
    path = Path(path)
    tensors, metadata, blueprint = _read(path, trust)
    if metadata.get("kind") != "adapted":
        raise Error(f"{path}: a model that is not adapted to a task; read it with fmaml.load, then adapt it")
    classes: Any = metadata.get("classes")
    named = isinstance(classes, list) and all(isinstance(name, str) for name in cast(list[Any], classes))
    if not named or len(set(classes)) < len(classes) or len(classes) == 1:
        raise Error(f"{path}: its metadata are not those of an adapted network (classes)")
    params = blueprint.params(len(classes) or blueprint.outputs)
    template = {"params": params, "statistics": list(statistics_in(tensors))}
    means = tensors.pop("means", None)  # files of earlier versions have none
    keeps = metadata.get("kept") is not None
    own = {name: tensor for name, tensor in tensors.items() if not (keeps and name.startswith("kept/"))}
    filled = fill_theta(template, own, str(path))
    kept = read_kept(metadata, blueprint, tensors, filled["params"], str(path))
    adapted = Adapted(metadata, blueprint, classes, filled["params"], filled["statistics"], means, kept)
    check_statistics(adapted, str(path))
    return adapted


def check_statistics(adapted: Adapted, name: str) -> None:
    """Error unless the statistics fit the network's norms, in number, width and range."""
    finite = all(bool(each.isfinite().all()) for pair in adapted.statistics for each in pair)
    if not finite or any(bool((pair.variance < 0).any()) for pair in adapted.statistics):
        raise Error(f"{name}: its statistics are not means and variances")
    x = torch.zeros(1, *adapted.shape.inputs, dtype=adapted.shape.dtype)
    try:
        adapted.outputs(x)
        if adapted.means is not None and not are_class_means(adapted, adapted.means, x):
            raise ValueError("class means")
    except (ValueError, RuntimeError) as error:
        raise Error(f"{name}: its statistics are not those of its network ({error})") from None


def are_class_means(adapted: Adapted, means: Tensor, x: Tensor) -> bool:
    """Whether there is one finite mean for each class, in the space of the network's features of x."""
    fits = means.ndim == 2 and len(means) == len(adapted.classes) and bool(means.isfinite().all())
    return fits and adapted.distances(x).shape == x.shape[:1]


def statistics_in(tensors: dict[str, Tensor]) -> Iterator[Statistics]:
    """The statistics of each batch norm; the network's settings do not tell their number."""
    for i in count():
        found = [tensors.get(f"statistics/{i}/{field}") for field in Statistics._fields]
        if any(value is None or value.ndim != 1 for value in found):
            return
        yield Statistics(*(value for value in found if value is not None))


def is_adapted(path: str | Path) -> bool:
    """Whether a model file holds an adapted network."""
    if is_pretrained(path):
        return False
    _, metadata = read_model(find_model(path))
    return metadata is not None and metadata.get("kind") == "adapted"


def _read(path: Path, trust: bool) -> tuple[dict[str, Tensor], Metadata, Blueprint]:
    tensors, metadata = read_model(path)
    if metadata is None:
        raise Error(f"{path}: parameters without metadata, so the network is unknown; give a model that fmaml wrote")
    if metadata.get("white", 0) not in range(WHITE + 1):
        raise Error(f"{path}: its metadata are not those of a model (white)")
    try:
        read_calibration(metadata.get("calibration"))
    except (ValueError, TypeError, KeyError) as error:
        raise Error(f"{path}: its metadata are not those of a model (calibration: {error})") from None
    return tensors, metadata, read_blueprint(metadata, str(path), trust)
