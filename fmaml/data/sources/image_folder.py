"""Your own images: a folder for each class, or a table of them; split by you, or at random once and for all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch

from ...errors import Error, note
from ...files.plain_text import counted
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
from ..images.understood import describe_pictures
from ..preprocessing import Form
from ..source import SPLITS, Source


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
    layout: Literal["auto", "classes", "splits", "merged", "all"] = "auto",
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
    the columns file, label and, optionally, split. ``layout`` says what folders are:

    - "splits": the folders train, val and test at the top of ``root`` are splits.
    - "classes": every folder of images is a class.
    - "merged": all folders of one name are one class, wherever they are.
    - "all": every class is in each split. This is for tests of a trained model alone.
    - "auto": splits or classes, by their content; a line says which if in doubt.

    Splits that are missing are made of the classes by ``fractions`` (train, val, test) and ``split_seed``. They are
    kept in the user's cache folder, and used from then on.

    What is skipped is counted and named. Unreadable images are left out, or an error if ``strict``. A class that is in
    two splits is an error, since test classes would not be unseen, unless ``shared_classes``; reports then say so.
    Raises Error if ``root`` is not laid out like that or a class is too small.
    """
    path = Path(root).expanduser().resolve()
    found = find_images(path, root, layout)
    for line in found.lines:
        note(line)
    note(describe_pictures(found.classes))
    episode = Episode(ways, shots, queries, train_ways, train_shots, augment)
    form = Form(size, channels, fit, invert, ink if invert else "dark")
    if layout == "all":
        return every_class(path, found, seed, episode, form, device)
    three = three_splits(found, path, fractions, split_seed, allow_shared=shared_classes)
    check_ways(three, fractions, {split: episode.most(split)["ways"] for split in three.listing})
    listing = three.listing
    store = store_from_listing("folder", path if path.is_dir() else path.parent, listing, form, strict=strict)
    names = {split: list(classes) for split, classes in listing.items()}
    splits = store.splits(names, device)
    files = sum(len(files) for classes in listing.values() for files in classes.values())
    about = {"data": "folder", "files": [str(path)], "split": three.origin}
    about |= {"unreadable": files - int(store.counts.sum()), "license": "that of your images"}
    about |= {"shared_classes": three.shared} if three.shared else {}
    return episodes(splits, seed, episode, about, names=names, form=form)


def every_class(
    path: Path, found: FoundImages, seed: int, episode: Episode, form: Form, device: torch.device
) -> Source:
    """A source for tests alone: each split has every class, or those of the folder test if the images are split.

    Classes without an image to query are left out, and the queries are as few as the smallest class has, with a line.
    """
    classes = (found.splits or {}).get("test", found.classes)
    shots, queries, ways = (episode.most("test")[size] for size in ("shots", "queries", "ways"))
    kept = {name: files for name, files in classes.items() if len(files) > shots}
    small = sorted(classes.keys() - kept.keys())
    if len(kept) < ways:
        raise Error(
            f"data.ways = {ways}: {path} has {len(kept)} of {len(classes)} classes with more pictures than "
            f"data.shots = {shots}; give smaller data.ways or data.shots"
        )
    if small:
        note(f"classes of {counted(shots, 'picture')} or fewer left out: {len(small)}, such as {small[0]}")
    fewest = min(map(len, kept.values())) - shots
    if fewest < queries:
        note(f"data.queries = {fewest}, since the smallest class has {fewest + shots} pictures")
        episode = episode._replace(queries=fewest)
    store = store_from_listing("folder", path if path.is_dir() else path.parent, {"test": kept}, form, strict=False)
    split = store.splits({"test": list(kept)}, device)["test"]
    about = {"data": "folder", "files": [str(path)], "split": "every class", "license": "that of your images"}
    names = {part: list(kept) for part in SPLITS}
    return episodes(dict.fromkeys(SPLITS, split), seed, episode, about, names=names, form=form)


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
