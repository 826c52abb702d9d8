"""Cache a frozen network's features: compute them once per image instead of once per task."""

import torch
from rich.console import Console
from torch import Tensor

from ..config.build import Experiment
from ..config.settings import Config
from ..data.class_examples import as_floats
from ..data.files.cache import cached, checksum, fingerprint
from ..data.files.cache_folder import cache_folder
from ..modules.pretrained_networks import WithHead, frozen_features
from ..processes.torch_settings import with_precision
from ..types import Model
from .log import progress_bar

_CACHE_VERSION = 1  # increase it when the features of the same network and images change
IMAGES_AT_ONCE = 64


def cache_frozen_features(console: Console, config: Config, experiment: Experiment, device: torch.device) -> Experiment:
    """Replace the images in the tasks by their features, if the features are frozen and depend on each image alone.

    Otherwise return the experiment unchanged.
    """
    source = experiment.source
    network = frozen_features(config["model"], source.inputs) if source.of_features else None
    if source.of_features is None or network is None:
        return experiment
    features = with_precision(features_alone(network.to(device)), config["train"]["precision"], device)
    identity = fingerprint(_CACHE_VERSION, *map(checksum, network.state_dict().values()), str(torch.__version__))
    facts = (identity, config["model"]["network"], config["train"]["precision"], device.type)

    def computed(images: Tensor) -> Tensor:
        path = cache_folder() / f"features-{fingerprint(*facts, checksum(images.cpu()))}.safetensors"
        return cached(path, lambda: features_in_parts(console, features, images)).to(device)

    return experiment._replace(source=source.of_features(computed))


def features_alone(network: WithHead) -> Model:
    """The network up to its head, as a model without parameters."""
    return Model(lambda generator: {}, lambda params, x: network.features(x))


@torch.no_grad()
def features_in_parts(console: Console, features: Model, images: Tensor) -> Tensor:
    """Stored images, uint8 [n, C, H, W] -> features [n, width] on the CPU."""
    with progress_bar(console) as bar:
        task = bar.add_task("features of the frozen network", total=len(images))
        parts: list[Tensor] = []
        for part in images.split(IMAGES_AT_ONCE):
            parts.append(features.apply({}, as_floats(part)).cpu())
            bar.advance(task, len(part))
    return torch.cat(parts)
