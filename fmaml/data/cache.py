"""A tensor that takes long to make, kept in a safetensors file.

Its digest is kept with it and checked on opening: a damaged file is made again, never used. A folder that
cannot be written costs time and not the run: one line on stderr says so.
"""

import contextlib
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..durable import sweep, write_durably
from .download import locked


def cached(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """The tensor in the file; if there is none, the tensor made, which is then kept.

    ``path`` must name all that the tensor depends on, see `fingerprint`. Of two processes that ask at once, one
    makes it and the other waits.
    """
    kept = _read(path)
    if kept is not None:
        return kept
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # where nothing can be written, nothing need be locked
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(path.parent))
            sweep(path.parent, path.name)
        kept = _read(path)
        return make_and_keep(path, make) if kept is None else kept


def make_and_keep(path: Path, make: Callable[[], Tensor]) -> Tensor:
    tensor = make()
    try:
        write_durably(path, save({"tensor": tensor}, {"sha256": digest(tensor)}))
    except OSError as error:
        print(f"fmaml: cannot keep {path} ({error}); it will be made again next time", file=sys.stderr)
    return tensor


def fingerprint(*facts: object) -> str:
    """16 hexadecimal digits that stand for the facts, by their repr."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def digest(tensor: Tensor) -> str:
    """SHA-256 of shape, type and values."""
    head = f"{tuple(tensor.shape)} {tensor.dtype}".encode()
    return hashlib.sha256(head + tensor.contiguous().numpy().tobytes()).hexdigest()


def _read(path: Path) -> Tensor | None:
    """The tensor, if the file is there and whole."""
    try:
        with safe_open(path, framework="pt") as file:
            tensor, written = file.get_tensor("tensor"), (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    return tensor if digest(tensor) == written else None
