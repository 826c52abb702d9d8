"""Cache a frozen network's features: compute them once an example instead of once a task."""

import torch
from rich.console import Console
from torch import Generator, Tensor

from ..config.build import Experiment, assembled
from ..config.settings import Config
from ..data.class_examples import as_floats
from ..data.files.cache import cached, checksum, fingerprint
from ..files.cache_folder import cache_folder
from ..modules.from_module import learnt_names
from ..modules.frozen_part import NoFeaturesError, split_frozen
from ..modules.pretrained_networks import network_of
from ..processes.torch_settings import with_precision
from ..types import Model, Params
from .log import progress_bar

_CACHE_VERSION = 2  # increase it when the features of the same network and images change
AT_ONCE = 64
CHECKED = 3  # examples on which the network is split
SIMILAR = 0.05, 0.05  # tolerances that admit bf16, and no other weights


def cache_frozen_features(console: Console, config: Config, experiment: Experiment, device: torch.device) -> Experiment:
    """Replace the examples in the tasks by their features, if these are frozen and depend on each example alone.

    Otherwise return the experiment unchanged; if a part of the network is frozen, a line gives the reason. The new
    model takes features or examples.
    """
    source, precision = experiment.source, config["train"]["precision"]
    network = network_of(config["model"], source.inputs, source.outputs)
    trainable = config["model"].get("trainable")
    if network is None:
        return experiment
    learnt = learnt_names(network, trainable)
    if len(learnt) == len(list(network.parameters())):
        return experiment
    x = source.sample("train", 0, range(1)).support.x[0, :CHECKED].cpu()
    try:
        if source.of_features is None:
            changed = "data.augment changes the images"
            drawn = f"data.name = {config['data']['name']} draws new examples in each task"
            raise NoFeaturesError(changed if config["data"].get("augment") else drawn)
        split = split_frozen(network, trainable, config["model"]["statistics"], x)
        features = split.features.apply({}, x)
        check_is_same(experiment.model, split.rest, features, x)
    except NoFeaturesError as error:
        console.print(f"features are computed in each task: {error}", highlight=False, markup=False, soft_wrap=True)
        return experiment
    frozen, rest = (with_precision(part, precision, device) for part in split)
    weights = fingerprint(*(checksum(value) for name, value in network.state_dict().items() if name not in learnt))
    facts = (_CACHE_VERSION, weights, checksum(features), str(torch.__version__), precision, device.type)

    def computed(examples: Tensor) -> Tensor:
        path = cache_folder() / f"features-{fingerprint(*facts, checksum(examples.cpu()))}.safetensors"
        return cached(path, lambda: features_in_parts(console, frozen, examples, device)).to(device)

    def apply(params: Params, x: Tensor) -> Tensor:
        """The output for features, or for examples, as in pictures of tasks."""
        return (rest if x.shape[1:] == features.shape[1:] else experiment.model).apply(params, x)

    model = Model(experiment.model.init, apply)
    return assembled(config, source.of_features(computed), model)


def check_is_same(whole: Model, rest: Model, features: Tensor, x: Tensor) -> None:
    """NoFeaturesError if the network, made once more for its features, is not the one that is trained."""
    params = whole.init(Generator().manual_seed(0))
    if not torch.allclose(whole.apply(params, x), rest.apply(params, features), *SIMILAR):
        raise NoFeaturesError("the function of model.module returns another network in each call")


@torch.no_grad()
def features_in_parts(console: Console, frozen: Model, examples: Tensor, device: torch.device) -> Tensor:
    """Stored examples, such as images uint8 [n, C, H, W] -> features float32 [n, ..] on the CPU."""
    with progress_bar(console) as bar:
        task = bar.add_task("features of the frozen network", total=len(examples))
        parts: list[Tensor] = []
        for part in examples.split(AT_ONCE):
            parts.append(frozen.apply({}, as_floats(part.to(device))).cpu())
            bar.advance(task, len(part))
    return torch.cat(parts)
