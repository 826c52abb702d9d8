"""Your own images: a folder for each class, or a table of them; split by you, or at random once and for all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch

from ...errors import Error, note
from ...setting_types import (
    Change,
    CostsMemory,
    Count,
    FreeOnResume,
    Natural,
    Size,
    SizeOrRange,
    Unit,
    Ways,
    WaysOrRange,
)
from ..class_splits import check_ways, three_splits
from ..episodes import Episode, episodes
from ..images.image_cache import store_from_listing
from ..images.layouts import FoundImages, Layout, read_image_folder, read_table
from ..preprocessing import Form
from ..source import Source


def folder(
    *,
    seed: int,
    device: torch.device,
    root: Annotated[str, FreeOnResume],
    size: Size = 84,
    channels: Literal[1, 3] = 3,
    fit: Literal["crop", "squeeze", "pad"] = "crop",
    invert: bool = False,
    ink: Literal["auto", "dark", "light"] = "auto",
    ways: WaysOrRange = 5,
    shots: SizeOrRange = 1,
    queries: SizeOrRange = 15,
    train_ways: Annotated[Ways | None, CostsMemory] = None,
    train_shots: Annotated[Count | None, CostsMemory] = None,
    augment: Sequence[Change] = (),
    layout: Literal["auto", "classes", "splits", "merged"] = "auto",
    fractions: tuple[Unit, Unit, Unit] = (0.64, 0.16, 0.2),
    split_seed: Natural = 0,
    shared_classes: bool = False,
    strict: bool = False,
) -> Source:
    """Your own images: a folder for each class, to any depth, or a table file,label; split by you, or at random.

    Returns a source of N-way K-shot tasks, see `fmaml.data.episodes.Episode`: x float32 [tasks, n, channels, size,
    size] in [0, 1], y int64 [tasks, n]. Images are made square by ``fit``, cropped to their central square, squeezed,
    or padded with white; they are resized to ``size`` pixels, with 1 channel (grey) or 3 (RGB), light and dark
    exchanged if ``invert``: drawings become light on dark, which those in light ``ink`` are already ("auto" looks at
    the border of each). They go to ``device``. Tasks are a function of ``seed``.

    ``root`` is a folder, in which each folder with images is a class and its path the class's name; or a CSV file with
    the columns file, label and, optionally, split. By ``layout`` "splits" the folders train, val and test at the top
    of ``root`` are splits; by "classes" they are not; by "merged" all folders of one name are one class, wherever they
    are; "auto" decides by their content, and says so if in doubt. What
    lacks of the splits is made of the classes by ``fractions`` (train, val, test) and ``split_seed``, kept in the
    user's cache folder, and used from then on.

    What is skipped is counted and named. Unreadable images are left out, or an error if ``strict``. A class that is in
    two splits is an error, since test classes would not be unseen, unless ``shared_classes``; reports then say so.
    Raises Error if ``root`` is not laid out like that or a class is too small.
    """
    path = Path(root).expanduser().resolve()
    found = find_images(path, root, layout)
    for line in found.lines:
        note(line)
    three = three_splits(found, path, fractions, split_seed, allow_shared=shared_classes)
    episode = Episode(ways, shots, queries, train_ways, train_shots, augment)
    check_ways(three, fractions, {split: episode.most(split)["ways"] for split in three.listing})
    listing, form = three.listing, Form(size, channels, fit, invert, ink if invert else "dark")
    store = store_from_listing("folder", path if path.is_dir() else path.parent, listing, form, strict=strict)
    names = {split: list(classes) for split, classes in listing.items()}
    splits = store.splits(names, device)
    files = sum(len(files) for classes in listing.values() for files in classes.values())
    about = {"data": "folder", "files": [str(path)], "split": three.origin}
    about |= {"unreadable": files - int(store.counts.sum()), "license": "that of your images"}
    about |= {"shared_classes": three.shared} if three.shared else {}
    return episodes(splits, seed, episode, about, names=names, form=form)


def find_images(path: Path, root: str, layout: Layout) -> FoundImages:
    """The images of a folder or a table; Error if ``root`` is neither."""
    if path.is_dir():
        return read_image_folder(path, layout)
    if path.exists():
        return read_table(path, layout)
    raise Error(
        f"data.root = {root}: no such folder or file; name a folder that has one of images for each class, or a CSV "
        f"file of images and labels"
    )
