"""The images of a data set, class by class in one tensor that is decoded once and then cached."""

from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import UserError, note
from ..episodes import Split
from ..files.cache import cached_all, fingerprint
from ..files.find import cache_folder
from ..preprocessing import Form
from .decoded import decoded_images
from .listing import Listing

_CACHE_VERSION = 1  # increase it when the same files would give other tensors
_NAMED_FILES = 3  # unreadable files that a message names


class ImageStore(NamedTuple):
    """The images of all classes of all splits, class after class."""

    images: Tensor  # uint8 [images, channels, height, width]
    counts: Tensor  # int64 [classes]: number of images of each class


def cached_store(name: str, facts: object, make: Callable[[], ImageStore]) -> ImageStore:
    """The store from the user's cache folder, made and written there if there is none.

    ``name`` begins the file's name; the repr of ``facts`` must determine the result.
    """

    def make_tensors() -> dict[str, Tensor]:
        note(f"reading images once, to be cached as {path}")
        store = make()
        return {"images": store.images, "count": store.counts}

    path = cache_folder() / f"{name}-{fingerprint(_CACHE_VERSION, facts)}.safetensors"
    tensors = cached_all(path, make_tensors)
    return ImageStore(tensors["images"], tensors["count"])


def store_from_listing(name: str, root: Path, listing: Listing, form: Form, *, strict: bool) -> ImageStore:
    """The store of a listing's image files, decoded once for ``root`` and ``form``, see `decoded_images`.

    Unreadable ones are named: UserError if ``strict``, else a line on stderr.
    """
    by_class = [files for classes in listing.values() for files in classes.values()]
    files = [file for part in by_class for file in part]
    images, errors = decoded_images(name, root, files, form)
    if errors:
        summary = _summarize([f"{files[i]} ({message})" for i, message in sorted(errors.items())])
        if strict:
            raise UserError(f"{summary}; every image must be readable: copy or download them again")
        note(f"{summary}; left out of {len(files)} images")
    ends = pairwise(accumulate(map(len, by_class), initial=0))
    return ImageStore(images, torch.tensor([sum(i not in errors for i in range(first, end)) for first, end in ends]))


def _summarize(failures: list[str]) -> str:
    """The number of unreadable images, and the first few of them."""
    rest = len(failures) - _NAMED_FILES
    more = f" and {rest} more" if rest > 0 else ""
    plural = "s" * (len(failures) != 1)
    return f"{len(failures)} unreadable image{plural}: {', '.join(failures[:_NAMED_FILES])}{more}"


def store_splits(store: ImageStore, names: dict[str, list[str]], device: torch.device) -> dict[str, Split]:
    """The store as splits on the device; each has as many consecutive classes as it has ``names``."""
    counts = store.counts.split([len(part) for part in names.values()])
    rows = [int(count.sum()) for count in counts]
    parts = zip(names, store.images.split(rows), counts, strict=True)
    return {
        name: Split(images.to(device), (count.cumsum(0) - count).to(device), count.to(device), int(count.max()))
        for name, images, count in parts
    }
