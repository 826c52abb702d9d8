"""The images of a data set, class after class in one tensor, decoded once and then cached.

The images of a root are in one file for each form: whatever splits and settings ask, each is decoded once. A file that
was changed is decoded again, and one that cannot be read is tried again each time.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import Error, note
from ...files.plain_text import counted, first_few
from ..class_examples import Split
from ..files.cache import Tensors, cached_all, fingerprint, locked_parent, read_tensors, write_tensors
from ..files.cache_folder import cache_folder, writing_allowed
from ..preprocessing import Form
from .decode import decode_images
from .scan import Listing

_STORE_VERSION, _DECODED_VERSION = 1, 2  # increase them when the same files would give other tensors
Stamp = tuple[int, int]  # bytes, and the time of the last change in ns


class ImageStore(NamedTuple):
    """The images of all classes of all splits, class after class."""

    images: Tensor  # uint8 [images, channels, height, width]
    counts: Tensor  # int64 [classes]: number of images of each class

    def splits(self, names: dict[str, list[str]], device: torch.device) -> dict[str, Split]:
        """The images as splits on the device; each has as many consecutive classes as it has ``names``."""
        counts = self.counts.split([len(part) for part in names.values()])
        parts = zip(names, self.images.split([int(count.sum()) for count in counts]), counts, strict=True)
        return {
            name: Split(images.to(device), (count.cumsum(0) - count).to(device), count.to(device), int(count.max()))
            for name, images, count in parts
        }


def cached_store(name: str, facts: object, make: Callable[[], ImageStore]) -> ImageStore:
    """The store from the user's cache folder, made and written there if there is none.

    ``name`` begins the file's name; the repr of ``facts`` must determine the result.
    """

    def make_tensors() -> Tensors:
        note(f"reading images once, to be cached as {path}")
        return dict(zip(("images", "count"), make(), strict=True))

    path = cache_folder() / f"{name}-{fingerprint(_STORE_VERSION, facts)}.safetensors"
    tensors = cached_all(path, make_tensors)
    return ImageStore(tensors["images"], tensors["count"])


def store_from_listing(name: str, root: Path, listing: Listing, form: Form, *, strict: bool) -> ImageStore:
    """The store of a listing's image files, decoded once for ``root`` and ``form``, see `decoded_images`.

    Unreadable ones are named: Error if ``strict``, else a line on stderr.
    """
    classes = [files for split in listing.values() for files in split.values()]
    files = [file for part in classes for file in part]
    images, errors = decoded_images(name, root, files, form)
    if errors and strict:
        raise Error(f"{_describe_errors(errors)}; every image must be readable: copy or download them again")
    if errors:
        note(f"{_describe_errors(errors)}; left out of {len(files)} images")
    return ImageStore(images, torch.tensor([sum(file not in errors for file in part) for part in classes]))


def _describe_errors(errors: dict[str, str]) -> str:
    """How many files cannot be read, and why the first of them cannot."""
    named = [f"{file} ({why})" for file, why in errors.items()]
    return f"{counted(len(errors), 'unreadable image')}: {first_few(named)}"


class _Decoded(NamedTuple):
    """The images of some files, in the order of ``stamps``."""

    images: Tensor  # uint8 [files, channels, size, size]
    stamps: dict[str, Stamp]  # file -> its stamp when it was decoded

    def lacks(self, stamps: dict[str, Stamp]) -> list[str]:
        """Those of the files that are not here as they are now."""
        return [file for file, stamp in stamps.items() if self.stamps.get(file) != stamp]

    def take(self, files: list[str]) -> Tensor:
        """The images of the files; no copy if they are all that are here, in the same order."""
        if files == list(self.stamps):
            return self.images
        rows = {file: row for row, file in enumerate(self.stamps)}
        return self.images[[rows[file] for file in files]]

    def updated(self, fresh: "_Decoded") -> "_Decoded":
        """These images without files that were changed or are gone, and after them the fresh ones."""
        if not self.stamps:
            return fresh
        kept = [file for file in self.stamps if file not in fresh.stamps and os.path.exists(file)]
        images = torch.cat([self.take(kept), fresh.images])
        return _Decoded(images, {file: self.stamps[file] for file in kept} | fresh.stamps)


def decoded_images(name: str, root: Path, files: list[str], form: Form) -> tuple[Tensor, dict[str, str]]:
    """The images of those ``files`` that can be read, in order, and for each other file why it cannot be read.

    Images are uint8 [files - errors, channels, size, size]; they are decoded unless they are kept, and then kept.
    ``root`` is what the files belong to, and ``name`` begins the name of the file that they are kept in. If several
    processes ask at once, one decodes and the others wait.
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
                note(f"decoded {len(images)} images" + (f"; they are kept as {path}" if writing_allowed() else ""))
    return kept.take([file for file in files if file not in errors]), errors


def _stamp(file: str) -> Stamp:
    """Size and time of the last change, which differ after almost any change; (-1, -1) if there is no such file."""
    try:
        found = os.stat(file)
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _read(path: Path, root: Path, form: Form) -> _Decoded:
    """What the file keeps, with names relative to the root if they are in it; nothing if it is missing or damaged."""
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
    """Such as "84 px, colour, crop"."""
    return ", ".join(
        [f"{form.size} px", "grey" if form.channels == 1 else "colour", form.fit, *["inverted"] * form.invert]
    )
