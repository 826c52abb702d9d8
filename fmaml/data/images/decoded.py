"""Decoded images of a root, kept in one file for each size: whatever splits and settings ask, each is decoded once.

A file that was changed is decoded again, and one that cannot be read is tried again each time.
"""

import os
from collections.abc import Set
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import note
from ..files.cache import Tensors, fingerprint, locked_parent, read_tensors, write_tensors
from ..files.find import cache_folder
from ..files.writing import writing_allowed
from ..preprocessing import Form
from .decode import decode_images

_CACHE_VERSION = 2  # increase it when the same files would give other tensors
Stamp = tuple[int, int]  # bytes, and the time of the last change in ns


class Decoded(NamedTuple):
    """The images of those files that could be read, in order."""

    images: Tensor  # uint8 [files - errors, channels, size, size]
    errors: dict[int, str]  # index of a file -> why it could not be read


class Kept(NamedTuple):
    """What is kept of a root."""

    images: Tensor  # uint8 [files, channels, size, size]
    files: list[str]  # their paths, relative to the root if they are in it
    stamps: list[Stamp]


def decoded_images(name: str, root: Path, files: list[str], form: Form) -> Decoded:
    """The images of ``files``, which are decoded unless they are kept, and then kept.

    ``root`` is what the files belong to, and ``name`` begins the name of the file that they are kept in. If several
    processes ask at once, one decodes and the others wait.
    """
    path = cache_folder() / f"{name}-{fingerprint(_CACHE_VERSION, str(root.resolve()), form)}.safetensors"
    names, stamps = [file.removeprefix(f"{root}/") for file in files], [_stamp(file) for file in files]
    kept = _read(path, form)
    todo = _missing(kept, names, stamps)
    if not todo:
        return Decoded(_take(kept, names), {})
    with locked_parent(path):
        kept = _read(path, form)  # another process may have written it while this one waited
        todo = _missing(kept, names, stamps)
        images, failed = decode_images([files[i] for i in todo], form)
        good = [i for at, i in enumerate(todo) if at not in failed]
        if good:
            fresh = Kept(_without_rows(images, failed.keys()), [names[i] for i in good], [stamps[i] for i in good])
            kept = _joined(kept, fresh, root)
            _write(path, kept, f"{root.resolve()}, {describe_form(form)}")
            note(f"decoded {len(good)} images" + (f"; they are kept as {path}" if writing_allowed() else ""))
    errors = {todo[at]: message for at, message in failed.items()}
    return Decoded(_take(kept, [name for i, name in enumerate(names) if i not in errors]), errors)


def describe_form(form: Form) -> str:
    """Such as "84 px, colour, crop"."""
    return ", ".join(
        [f"{form.size} px", "grey" if form.channels == 1 else "colour", form.fit, *["inverted"] * form.invert]
    )


def _stamp(file: str) -> Stamp:
    """Size and time of the last change, which differ after almost any change; (-1, -1) if there is no such file."""
    try:
        found = os.stat(file)
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _missing(kept: Kept, files: list[str], stamps: list[Stamp]) -> list[int]:
    """The indices of the files that are not kept as they are now."""
    known = dict(zip(kept.files, kept.stamps, strict=True))
    return [i for i, (file, stamp) in enumerate(zip(files, stamps, strict=True)) if known.get(file) != stamp]


def _without_rows(images: Tensor, rows: Set[int]) -> Tensor:
    """The images without some rows. The others are moved in place, because a second copy may not fit into memory."""
    good = [i for i in range(len(images)) if i not in rows]
    for to, i in enumerate(good):
        if to != i:
            images[to] = images[i]
    return images[: len(good)]


def _take(kept: Kept, files: list[str]) -> Tensor:
    """The images of the files, in their order; no copy if they are all that is kept, in the same order."""
    if kept.files == files:
        return kept.images
    rows = {file: row for row, file in enumerate(kept.files)}
    return kept.images[[rows[file] for file in files]]


def _joined(kept: Kept, fresh: Kept, root: Path) -> Kept:
    """What is kept, without files that were changed or are gone, and after it what is fresh."""
    if not kept.files:
        return fresh
    changed = set(fresh.files)
    rows = [row for row, file in enumerate(kept.files) if file not in changed and os.path.exists(root / file)]
    return Kept(
        torch.cat([kept.images[rows], fresh.images]),
        [kept.files[row] for row in rows] + fresh.files,
        [kept.stamps[row] for row in rows] + fresh.stamps,
    )


def _read(path: Path, form: Form) -> Kept:
    """What the file keeps; nothing if it is missing or damaged."""
    tensors = read_tensors(path)
    if tensors is None:
        return Kept(torch.zeros(0, form.channels, form.size, form.size, dtype=torch.uint8), [], [])
    names = tensors["files"].numpy().tobytes()
    stamps = [(size, changed) for size, changed in tensors["stamps"].tolist()]
    return Kept(tensors["images"], [os.fsdecode(name) for name in names.split(b"\0")], stamps)


def _write(path: Path, kept: Kept, about: str) -> None:
    names = b"\0".join(os.fsencode(file) for file in kept.files)
    tensors: Tensors = {
        "images": kept.images,
        "files": torch.frombuffer(bytearray(names), dtype=torch.uint8),
        "stamps": torch.tensor(kept.stamps, dtype=torch.int64),
    }
    write_tensors(path, tensors, about)
