"""Parameters as safetensors files, written whole or not at all."""

from pathlib import Path

from safetensors.torch import load_file, save

from .durable import write_durably
from .types import Params


def save_params(path: Path, params: Params) -> None:
    """Write a dict of tensors."""
    write_durably(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in params.items()}))


def load_params(path: Path) -> Params:
    """Read what `save_params` wrote."""
    return load_file(path)
