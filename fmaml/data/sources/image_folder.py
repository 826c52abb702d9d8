"""Your own images: a folder for each class, or a table. You give the split, or it is drawn once and stored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch

from ...errors import Error, note
from ...files.plain_text import counted
from ...setting_types import (
    Change,
    FreeOnResume,
    KeepsTestTasks,
    Natural,
    Size,
    SizeOrRange,
    TrainBatch,
    TrainShots,
    TrainWays,
    Unit,
    WaysOrRange,
)
from ..class_splits import check_ways, three_splits
from ..episodes import Episode, episodes
from ..images.image_cache import store_from_listing
from ..images.label_table import read_table
from ..images.layouts import FoundImages, Layout, read_image_folder
from ..images.lowered_sizes import LEAST_SPLIT, fitting_sizes, sizes_of_a_test
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
    train_ways: TrainWays = None,
    train_shots: TrainShots = None,
    train_batch: TrainBatch = None,
    augment: Annotated[Sequence[Change], KeepsTestTasks] = (),
    layout: Literal["auto", "classes", "splits", "merged", "all"] = "auto",
    fractions: tuple[Unit, Unit, Unit] = (0.64, 0.16, 0.2),
    split_seed: Natural = 0,
    shared_classes: bool = False,
    lower_sizes: bool = False,
    file_column: str | None = None,
    label_column: str | None = None,
    strict: bool = False,
) -> Source:
    """Your own images: a folder for each class, to any depth, or a table file,label. The split is yours or random.

    Returns a source of N-way K-shot tasks, see `fmaml.data.episodes.Episode`: x float32 [tasks, n, channels, size,
    size] in [0, 1], y int64 [tasks, n]. ``fit`` makes images square: crop to the central square, squeeze, or pad with
    white. They are resized to ``size`` pixels, with 1 channel (grey) or 3 (RGB). ``invert`` makes drawings light on
    dark, unless their ``ink`` is light already; "auto" looks at the border of each drawing. Images are on ``device``.
    Tasks depend only on ``seed``.

    ``root`` is a folder, or a CSV file with the columns file, label and, optionally, split. In a folder, each folder
    with images is a class, named by its path. ``layout`` is one of:

    - "splits": the folders train, val and test at the top of ``root`` are splits.
    - "classes": every folder of images is a class.
    - "merged": all folders with the same name are one class.
    - "all": every class is in each split. This is only for tests of a trained model.
    - "auto": "splits" or "classes", by the content of the folders. If this is ambiguous, a line says which.

    Missing splits are drawn from the classes by ``fractions`` (train, val, test) and ``split_seed``, and stored in the
    user's cache folder for later runs.

    ``file_column`` and ``label_column`` name the columns of a table with other names. Rows with a missing file or label
    are left out and counted, or an error if ``strict``.

    ``lower_sizes`` lowers ways, shots, queries and fractions to those that the classes allow, with a line.

    Skipped files are counted and named. Unreadable images are left out, or an error if ``strict``. A class in two
    splits is an error, since test classes would not be unseen. ``shared_classes`` permits it, and reports then say so.
    Raises Error if ``root`` has another layout or a class is too small.
    """
    path = Path(root).expanduser().resolve()
    found = find_images(path, root, layout, file_column, label_column, strict)
    for line in found.lines:
        note(line)
    note(describe_pictures(found.classes))
    episode = Episode(ways, shots, queries, train_ways, train_shots, augment, train_batch)
    form = Form(size, channels, fit, invert, ink if invert else "dark")
    if layout == "all":
        return every_class(path, found, seed, episode, form, device, lower_sizes=lower_sizes)
    if lower_sizes:
        found, episode, fractions = fitting_sizes(path, found, episode, fractions, split_seed)
        shared_classes = shared_classes or len(found.classes) < LEAST_SPLIT
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
    path: Path, found: FoundImages, seed: int, episode: Episode, form: Form, device: torch.device, *, lower_sizes: bool
) -> Source:
    """Make a source only for tests: each split has every class, or if the images are split, those of test.

    Classes too small for a query are left out, and the smallest class limits ``queries``. Lines on stderr say so. With
    ``lower_sizes`` the classes limit all sizes.
    """
    classes = (found.splits or {}).get("test", found.classes)
    if lower_sizes:
        classes, episode = sizes_of_a_test(path, classes, episode)
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


def find_images(
    path: Path, root: str, layout: Layout, file_column: str | None, label_column: str | None, strict: bool
) -> FoundImages:
    """Find the images of a folder or a table; Error if ``root`` is neither."""
    if path.is_dir():
        return read_image_folder(path, layout)
    if path.exists():
        return read_table(path, layout, file_column=file_column, label_column=label_column, strict=strict)
    raise Error(
        f"data.root = {root}: no such folder or file; name a folder of class folders, or a CSV file of images "
        f"and labels"
    )
