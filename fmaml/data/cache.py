"""A tensor that is costly to make, kept in a safetensors file.

Written beside its name, synced, renamed, and the folder synced: at every instant there is the whole file or none. The
digest of the tensor is kept with it and checked on opening; a damaged file is made again, never used. A folder that
cannot be written costs time, not the run: that is one line on stderr.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor


def cached(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """The tensor in the file, or else the tensor made, which is then written for the next time.

    ``path`` must name all that the tensor depends on; see `fingerprint`.
    """
    kept = _read(path)
    if kept is not None:
        return kept
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
    """SHA-256 of shape, type and bytes."""
    head = f"{tuple(tensor.shape)} {tensor.dtype} ".encode()
    return hashlib.sha256(head + tensor.contiguous().numpy().tobytes()).hexdigest()


def _read(path: Path) -> Tensor | None:
    """The tensor if the file is there and whole."""
    try:
        with safe_open(path, framework="pt") as file:
            tensor, written = file.get_tensor("tensor"), (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    return tensor if digest(tensor) == written else None


def write_durably(path: Path, content: bytes) -> None:
    """Write a file such that a crash at any instant leaves the old one, the new one or none, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename last: the name lives in the folder, which has a cache of its own."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
