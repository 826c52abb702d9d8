"""Tensors that take long to make, kept in a safetensors file.

Their digests are kept with them and checked on opening: a damaged file is made again, never used. A folder that
cannot be written costs time and not the run: one line on stderr says so.

The file is mapped into memory and not read into it: gigabytes are open at once, and pages that are not in use cost
nothing. The digest does read all of it: SHA-256 at the 1.7 GB/s of one core (with its SHA instructions) is 0.8 s for
60,000 images of 84x84x3, less than a silent fault would cost.
"""

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...atomic_files import delete_temporary_files, write_durably
from .download import locked

Tensors = dict[str, Tensor]
TYPES = {torch.uint8: "U8", torch.int64: "I64"}  # as safetensors names them


def cached(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """The tensor in the file; if there is none, the tensor made, which is then kept. See `cached_all`."""
    return cached_all(path, lambda: {"tensor": make()})["tensor"]


def cached_all(path: Path, make: Callable[[], Tensors]) -> Tensors:
    """The tensors in the file; if there is none, those made, which are then kept.

    ``path`` must name all that they depend on, see `fingerprint`. Of two processes that ask at once, one makes them
    and the other waits.
    """
    kept = _read(path)
    if kept is not None:
        return kept
    with _alone(path):
        kept = _read(path)
        return _make_and_keep(path, make) if kept is None else kept


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the file's folder, made for that if need be; it goes again if nothing came into it."""
    new = [folder for folder in path.parents if not folder.exists()]
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # where nothing can be written, nothing need be locked
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(path.parent))
            delete_temporary_files(path.parent, path.name)
        try:
            yield
        finally:
            for folder in new:
                with contextlib.suppress(OSError):  # it holds something
                    folder.rmdir()


def _make_and_keep(path: Path, make: Callable[[], Tensors]) -> Tensors:
    tensors = make()
    try:
        write_durably(path, *_parts(tensors))
    except OSError as error:
        print(f"fmaml: cannot keep {path} ({error}); it will be made again next time", file=sys.stderr)
    return tensors


def fingerprint(*facts: object) -> str:
    """16 hexadecimal digits that stand for the facts, by their repr."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def digest(tensor: Tensor) -> str:
    """SHA-256 of shape, type and values."""
    total = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    total.update(_bytes(tensor))
    return total.hexdigest()


def _parts(tensors: Tensors) -> Iterator[bytes | memoryview]:
    """A safetensors file piece by piece. Its own writer would hold two more copies of everything."""
    header: dict[str, object] = {"__metadata__": {name: digest(tensor) for name, tensor in tensors.items()}}
    end = 0
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize))  # so that each starts aligned
    for name, tensor in ordered.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    yield from map(_bytes, ordered.values())


def _bytes(tensor: Tensor) -> memoryview:
    """The tensor's memory, not a copy (unless it is not in one piece)."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data


def _read(path: Path) -> Tensors | None:
    """The tensors, if the file is there and whole."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors, written = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return tensors if {name: digest(tensor) for name, tensor in tensors.items()} == written else None
