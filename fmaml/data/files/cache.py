"""Cache tensors that take long to compute, in memory-mapped safetensors files.

Each file also holds the checksums of its tensors. Opening a file verifies them, in 0.8 s for 60,000 images of 84x84x3;
a damaged file is computed again. If the folder cannot be written, each run computes the tensors, and a line on stderr
says so. All files together have at most `limit` bytes: the least recently used are deleted first.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...errors import Error, note
from ...files.atomic import delete_temporary_files, write_durably
from ...files.cache_folder import folder_lock, writing_allowed
from ...files.digests import sha256_of
from ...files.regular import check_regular
from .cache_files import ABOUT, make_room, mark_used

Tensors = dict[str, Tensor]
FileStamp = tuple[str, int, int]  # name, size in bytes, time of the last change in ns
_DTYPE_NAMES = {torch.uint8: "U8", torch.int64: "I64", torch.float32: "F32"}  # in safetensors


def cached(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """Read the tensor in the file ``path``, or make it by ``make`` and write it there.

    uint8, int64 and float32 tensors on the CPU only. See `cached_all`.
    """
    return cached_all(path, lambda: {"tensor": make()})["tensor"]


def cached_all(path: Path, make: Callable[[], Tensors]) -> Tensors:
    """Read the named tensors in the file ``path``, or make them by ``make`` and write them there.

    ``path`` must identify everything that the tensors depend on, see `fingerprint`. If several processes call this at
    once, one makes the tensors and the others wait.
    """
    found = read_tensors(path)
    if found is not None:
        return found
    with locked_parent(path):
        found = read_tensors(path)  # another process may have written it while this one waited
        if found is None:
            found = make()
            write_tensors(path, found)
        return found


@contextlib.contextmanager
def locked_parent(path: Path) -> Iterator[None]:
    """Lock the file's folder, and create it if needed. Created folders are removed again if they are still empty.

    A dry run writes nothing, so it creates and locks nothing.
    """
    if not writing_allowed():
        yield
        return
    created = [folder for folder in path.parents if not folder.exists()]
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a folder that cannot be written needs no lock
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(folder_lock(path.parent))
            delete_temporary_files(path.parent, path.name)
        try:
            yield
        finally:
            for folder in created:
                with contextlib.suppress(OSError):  # not empty
                    folder.rmdir()


def write_tensors(path: Path, tensors: Tensors, about: str | None = None) -> None:
    """Write the tensors to the file, and delete old files to make room. If that fails, a line on stderr says why.

    ``about`` is the description that `fmaml cache` prints.
    """
    if not writing_allowed():
        return
    try:
        parts = list(_safetensors_parts(tensors, about))
        if make_room(path, sum(map(len, parts))):
            write_durably(path, *parts)
    except OSError as error:
        note(f"cannot write {path} ({error}); the next run makes it again")


def fingerprint(*facts: object) -> str:
    """16 hexadecimal digits that identify the facts, from the SHA-256 of their repr."""
    return sha256_of(repr(facts))[:16]


def file_stamp(file: str) -> FileStamp:
    """Name, size and modification time of a file. Almost any change alters them. Error if it is missing."""
    try:
        found = os.stat(file)
    except OSError as error:
        raise Error(f"{file}: {error.strerror}; put the file there, or remove it from the data") from error
    return file, found.st_size, found.st_mtime_ns


def checksum(tensor: Tensor) -> str:
    """SHA-256 of shape, dtype and values."""
    return sha256_of(f"{tuple(tensor.shape)} {tensor.dtype}", tensor)


def _safetensors_parts(tensors: Tensors, about: str | None) -> Iterator[bytes | memoryview]:
    """Make a safetensors file in parts. The library's writer would hold two more copies of all tensors."""
    metadata = {name: checksum(tensor) for name, tensor in tensors.items()} | ({ABOUT: about} if about else {})
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize))  # keeps each tensor aligned
    for name, tensor in ordered.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": _DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    yield from map(_bytes, ordered.values())


def _bytes(tensor: Tensor) -> memoryview:
    """The tensor's memory. Copies only if it is not contiguous."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data


def read_tensors(path: Path) -> Tensors | None:
    """Read the tensors of a file and mark it as used; None if it is missing or damaged."""
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            tensors, expected = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    stored = {name: digest for name, digest in (expected or {}).items() if name != ABOUT}
    if {name: checksum(tensor) for name, tensor in tensors.items()} != stored:
        return None
    if writing_allowed():
        mark_used(path)
    return tensors
