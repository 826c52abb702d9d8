"""Images by class, in one tensor that is made once and kept."""

import os
import sys
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import UserError
from ..episodes import Split
from ..files.cache import cached_all, fingerprint
from ..files.find import cache_folder
from .decode import Form, decode_all, shown
from .listing import Listing

VERSION = 1  # of what is kept: raise it when the same files would give other tensors


class Album(NamedTuple):
    """The images of all classes of all splits, one class after the other."""

    images: Tensor  # uint8 [images, channels, height, width]
    count: Tensor  # int64 [classes]: how many images each has


def kept(name: str, facts: object, make: Callable[[], Album]) -> Album:
    """The album in the user's cache folder, made if it is not there; ``facts`` are all that it depends on."""

    def told() -> dict[str, Tensor]:
        print(f"fmaml: reading images once, to be kept as {path}", file=sys.stderr)
        return make()._asdict()

    path = cache_folder() / f"{name}-{fingerprint(VERSION, facts)}.safetensors"
    return Album(**cached_all(path, told))


def from_files(name: str, listing: Listing, form: Form, *, strict: bool) -> Album:
    """The album of a listing's files. UserError for unreadable ones, or if not ``strict`` a line on stderr."""
    by_class = [files for classes in listing.values() for files in classes.values()]
    files = [file for part in by_class for file in part]
    facts = (form, strict, list(map(len, by_class)), [state(file) for file in files])
    return kept(name, facts, lambda: decoded(files, list(map(len, by_class)), form, strict))


def state(file: str) -> tuple[str, int, int]:
    """Name, bytes and time of change: differs whenever the file may have changed."""
    try:
        found = os.stat(file)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; put the image there, or take it out of the list") from error
    return file, found.st_size, found.st_mtime_ns


def decoded(files: list[str], count: list[int], form: Form, strict: bool) -> Album:
    """The files, class by class with ``count`` in each; unreadable ones are left out, unless ``strict``."""
    images, wrong = decode_all(files, form)
    if wrong:
        said = shown([f"{files[i]} ({what})" for i, what in sorted(wrong.items())])
        if strict:
            raise UserError(f"{said}; every image must be readable: copy or download them again")
        print(f"fmaml: {said}; left out of {len(files)} images", file=sys.stderr)
        images = without(images, wrong)
    ends = pairwise(accumulate(count, initial=0))
    left = [sum(i not in wrong for i in range(first, end)) for first, end in ends]
    return Album(images, torch.tensor(left))


def without(images: Tensor, rows: dict[int, str]) -> Tensor:
    """The images but for some rows, moved up in place: a second copy may not fit."""
    good = [i for i in range(len(images)) if i not in rows]
    for to, i in enumerate(good):
        if to != i:
            images[to] = images[i]
    return images[: len(good)]


def cut(album: Album, names: dict[str, list[str]], device: torch.device) -> dict[str, Split]:
    """The album as splits of so many consecutive classes each, on the device."""
    counts = album.count.split([len(part) for part in names.values()])
    rows = [int(count.sum()) for count in counts]
    parts = zip(names, album.images.split(rows), counts, strict=True)
    return {
        name: Split(images.to(device), (count.cumsum(0) - count).to(device), count.to(device), int(count.max()))
        for name, images, count in parts
    }
