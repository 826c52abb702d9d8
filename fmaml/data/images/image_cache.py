"""The images of a data set, class after class in one tensor, decoded once and then cached.

The cache has one file for each root and form, for all splits and settings. Changed files are decoded again, and
unreadable files are tried again in each run.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import Error, note
from ...files.cache_folder import cache_folder, writing_allowed
from ...files.plain_text import counted, first_few
from ..class_examples import Split
from ..files.cache import Tensors, cached_all, fingerprint, locked_parent, read_tensors, write_tensors
from ..preprocessing import Form
from .decode import decode_images
from .scan import Listing

_STORE_VERSION, _DECODED_VERSION = 1, 2  # increase if the same files give other tensors
Stamp = tuple[int, int]  # bytes, and the time of the last change in ns


class ImageStore(NamedTuple):
    """The images of all classes of all splits, class after class."""

    images: Tensor  # uint8 [images, channels, height, width]
    counts: Tensor  # int64 [classes]: number of images of each class

    def splits(self, names: dict[str, list[str]], device: torch.device) -> dict[str, Split]:
        """Split the images, on the device: each split takes as many consecutive classes as it has ``names``."""
        counts = self.counts.split([len(part) for part in names.values()])
        parts = zip(names, self.images.split([int(count.sum()) for count in counts]), counts, strict=True)
        return {
            name: Split(images.to(device), (count.cumsum(0) - count).to(device), count.to(device), int(count.max()))
            for name, images, count in parts
        }


def cached_store(name: str, facts: object, make: Callable[[], ImageStore]) -> ImageStore:
    """Read the store from the user's cache folder, or make it and write it there.

    ``name`` begins the file's name. The repr of ``facts`` must determine the result.
    """

    def make_tensors() -> Tensors:
        note(f"reading images; they are cached as {path}")
        return dict(zip(("images", "count"), make(), strict=True))

    path = cache_folder() / f"{name}-{fingerprint(_STORE_VERSION, facts)}.safetensors"
    tensors = cached_all(path, make_tensors)
    return ImageStore(tensors["images"], tensors["count"])


def store_from_listing(name: str, root: Path, listing: Listing, form: Form, *, strict: bool) -> ImageStore:
    """Make the store of a listing's image files, see `decoded_images`.

    Unreadable files are an Error if ``strict``; else they are left out, with a line on stderr.
    """
    classes = [files for split in listing.values() for files in split.values()]
    files = [file for part in classes for file in part]
    images, errors = decoded_images(name, root, files, form)
    if errors and strict:
        raise Error(f"{_describe_errors(errors)}; every image must be readable; copy or download them again")
    if errors:
        note(f"{_describe_errors(errors)}; left out of {len(files)} images")
    return ImageStore(images, torch.tensor([sum(file not in errors for file in part) for part in classes]))


def _describe_errors(errors: dict[str, str]) -> str:
    """The number of unreadable files, and the errors of the first few."""
    named = [f"{file} ({why})" for file, why in errors.items()]
    return f"{counted(len(errors), 'unreadable image')}: {first_few(named)}"


class _Decoded(NamedTuple):
    """The images of some files, in the order of ``stamps``."""

    images: Tensor  # uint8 [files, channels, size, size]
    stamps: dict[str, Stamp]  # file -> its stamp when it was decoded

    def lacks(self, stamps: dict[str, Stamp]) -> list[str]:
        """The files that are missing here, or were changed since."""
        return [file for file, stamp in stamps.items() if self.stamps.get(file) != stamp]

    def take(self, files: list[str]) -> Tensor:
        """The images of the files. Copies unless they are all, in the same order."""
        if files == list(self.stamps):
            return self.images
        rows = {file: row for row, file in enumerate(self.stamps)}
        return self.images[[rows[file] for file in files]]

    def updated(self, fresh: "_Decoded") -> "_Decoded":
        """These images without changed and deleted files, followed by the fresh ones."""
        if not self.stamps:
            return fresh
        kept = [file for file in self.stamps if file not in fresh.stamps and os.path.exists(file)]
        images = torch.cat([self.take(kept), fresh.images])
        return _Decoded(images, {file: self.stamps[file] for file in kept} | fresh.stamps)


def decoded_images(name: str, root: Path, files: list[str], form: Form) -> tuple[Tensor, dict[str, str]]:
    """Decode image files, or take them from the cache, and cache them.

    Returns the images of the readable files, in order, uint8 [files - errors, channels, size, size], and the errors of
    the others, by file. ``root`` is the files' folder; ``name`` begins the name of the cache file. If several processes
    call this at once, one decodes and the others wait.
    """
    path = cache_folder() / f"{name}-{fingerprint(_DECODED_VERSION, str(root.resolve()), form)}.safetensors"
    stamps = {file: _stamp(file) for file in files}
    errors: dict[str, str] = {}
    kept = _read(path, root, form)
    if kept.lacks(stamps):
        with locked_parent(path):
            kept = _read(path, root, form)  # another process may have written it while this one waited
            lacking = kept.lacks(stamps)
            images, errors = decode_images(lacking, form)
            if len(images):
                kept = kept.updated(_Decoded(images, {file: stamps[file] for file in lacking if file not in errors}))
                _write(path, root, kept, form)
                note(f"decoded {len(images)} images" + (f"; they are cached as {path}" if writing_allowed() else ""))
    return kept.take([file for file in files if file not in errors]), errors


def _stamp(file: str) -> Stamp:
    """Size and time of the last change. Almost any change alters them. (-1, -1) if the file is missing."""
    try:
        found = os.stat(file)
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _read(path: Path, root: Path, form: Form) -> _Decoded:
    """Read a cache file. Names in it are relative to the root if possible. Empty if it is missing or damaged."""
    tensors = read_tensors(path)
    if tensors is None:
        return _Decoded(torch.zeros(0, form.channels, form.size, form.size, dtype=torch.uint8), {})
    names = tensors["files"].numpy().tobytes().split(b"\0")
    stamps = ((size, changed) for size, changed in tensors["stamps"].tolist())
    return _Decoded(
        tensors["images"],
        {os.path.join(root, os.fsdecode(name)): stamp for name, stamp in zip(names, stamps, strict=True)},
    )


def _write(path: Path, root: Path, kept: _Decoded, form: Form) -> None:
    names = b"\0".join(os.fsencode(file.removeprefix(f"{root}/")) for file in kept.stamps)
    tensors: Tensors = {
        "images": kept.images,
        "files": torch.frombuffer(bytearray(names), dtype=torch.uint8),
        "stamps": torch.tensor(list(kept.stamps.values()), dtype=torch.int64),
    }
    write_tensors(path, tensors, f"{root.resolve()}, {describe_form(form)}")


def describe_form(form: Form) -> str:
    """A form as text, such as "84 px, colour, crop"."""
    return ", ".join(
        [f"{form.size} px", "grey" if form.channels == 1 else "colour", form.fit, *["inverted"] * form.invert]
    )
