"""Parameters as safetensors files, written whole or not at all."""

from pathlib import Path

from safetensors.torch import load_file, save

from .durable import write_durably
from .tree import named_leaves
from .types import Params, Theta


def save_params(path: Path, theta: Theta) -> None:
    """Write a tree of tensors; those of a tree in a tree are named as "rates/conv1.weight"."""
    tensors = named_leaves(theta)
    write_durably(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def load_params(path: Path) -> Params:
    """Read what `save_params` wrote."""
    return load_file(path)
