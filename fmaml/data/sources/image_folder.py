"""Your own images: a folder for each class, split by you, or at random once and for all."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import torch

from ...atomic_files import write_durably
from ...errors import UserError, note
from ...ranges import CostsMemory, FreeOnResume, Natural, Size, SizeOrRange, Unit, Ways, WaysOrRange
from ...regular_files import read_regular
from ..episodes import episodes
from ..files.cache import fingerprint
from ..files.find import cache_folder
from ..images.decode import Form
from ..images.image_store import store_from_listing, store_splits
from ..images.listing import (
    SPLIT_ALIASES,
    Classes,
    Listing,
    list_class_folders,
    list_classes,
    list_split_folders,
    split_paths,
)
from ..source import Source

_MAX_SPLIT_BYTES = 100_000_000


def folder(
    *,
    seed: int,
    device: torch.device,
    root: Annotated[str, FreeOnResume],
    size: Size = 84,
    channels: Literal[1, 3] = 3,
    fit: Literal["crop", "squeeze", "pad"] = "crop",
    invert: bool = False,
    ways: WaysOrRange = 5,
    shots: SizeOrRange = 1,
    queries: SizeOrRange = 15,
    train_ways: Annotated[Ways | None, CostsMemory] = None,
    fractions: tuple[Unit, Unit, Unit] = (0.64, 0.16, 0.2),
    split_seed: Natural = 0,
    shared_classes: bool = False,
    strict: bool = False,
) -> Source:
    """Your own images: root/train/CLASS/*, root/val/.., root/test/.., or root/CLASS/*, which is split at random.

    Returns a source of N-way K-shot tasks: support x float32 [tasks, ways * shots, channels, size, size] in [0, 1] and
    y int64 [tasks, ways * shots], the query set the same with ``queries``, which is per class. A range, such as
    ``ways: [3, 8]``, makes tasks of different sizes. ``train_ways`` are the ways of training tasks, by default
    ``ways``. Images are made square by ``fit``, cropped to their central square, squeezed, or padded with white; they
    are resized to ``size`` pixels, with 1 channel (grey) or 3 (RGB), light and dark exchanged if ``invert``, and go to
    ``device``. Tasks are a function of ``seed``.

    Without folders train, val and test, the classes are split by ``fractions`` (train, val, test) and ``split_seed``;
    the split is stored in the user's cache folder and used from then on. Unreadable images are named and left out, or
    an error if ``strict``. A class that is in two splits is an error, since test classes would not be unseen, unless
    ``shared_classes``; reports then say so. Raises UserError if the folder is not laid out like that or a class is too
    small.
    """
    path = Path(root).expanduser().resolve()
    listing, split_name = _list_images(path, root, fractions, split_seed)
    form = Form(size, channels, fit, invert)
    store = store_from_listing("folder", listing, form, strict=strict)
    names = {split: list(classes) for split, classes in listing.items()}
    shared = _shared_classes(names)
    if shared and not shared_classes:
        raise UserError(
            f"{path}: class {', '.join(shared[:3])} is in more than one split, so test classes would not be unseen; "
            f"put each class into one split, or give data.shared_classes=true to test on classes seen in training"
        )
    splits = store_splits(store, names, device)
    files = sum(len(files) for classes in listing.values() for files in classes.values())
    unreadable = files - int(store.counts.sum())
    about = {
        "data": "folder",
        "files": [str(path)],
        "split": split_name,
        "unreadable": unreadable,
        "license": "that of your images",
    }
    about |= {"shared_classes": shared} if shared else {}
    return episodes(
        splits,
        seed=seed,
        ways=ways,
        shots=shots,
        queries=queries,
        about=about,
        names=names,
        train_ways=train_ways,
        form=form,
    )


def _shared_classes(names: dict[str, list[str]]) -> list[str]:
    """The classes that are in more than one split."""
    counts = Counter(name for classes in names.values() for name in classes)
    return sorted(name for name, count in counts.items() if count > 1)


def _list_images(path: Path, root: str, fractions: tuple[float, ...], split_seed: int) -> tuple[Listing, str]:
    """The files by split and class, and the name of the split."""
    if not path.is_dir():
        raise UserError(f"data.root = {root}: no such folder; name the one that has a folder of images for each class")
    folders = split_paths(path)
    if folders:
        return list_split_folders(folders), "folders train, val and test"
    present = [alias for aliases in SPLIT_ALIASES.values() for alias in aliases if (path / alias).is_dir()]
    if present:
        raise UserError(
            f"{path}: has {' and '.join(present)}, and a split needs all of train, val and test; add what is missing, "
            f"or put the classes themselves there to have them split"
        )
    classes = list_class_folders(path)
    split, split_file = _stored_split(path, classes, fractions, split_seed)
    return list_classes(split, path), f"random split {split_file.stem}"


def _stored_split(
    folder: Path, classes: Classes, fractions: tuple[float, ...], split_seed: int
) -> tuple[dict[str, list[str]], Path]:
    """The random split and its file in the user's cache folder, where it is written when it is first drawn.

    UserError if the classes are no longer those that were split: a new split would move classes between its parts, and
    models would then be tested on classes that they were trained on.
    """
    key = fingerprint(str(folder), list(fractions), split_seed)
    path = cache_folder() / "splits" / f"{folder.name}-{key}.json"
    if not path.exists():
        split = random_split(sorted(classes), fractions, split_seed)
        _write_split(path, folder, split)
        return split, path
    try:
        content = json.loads(read_regular(path, _MAX_SPLIT_BYTES))["classes"]
        split = {name: [str(cls) for cls in content[name]] for name in SPLIT_ALIASES}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a split that can be read ({error}); remove it to have a new one made") from error
    changed = sorted({cls for part in split.values() for cls in part} ^ classes.keys())
    if changed:
        raise UserError(
            f"{folder}: class {', '.join(changed[:3])} was added or removed since the split in {path} was made; a "
            f"split is fixed: put the folders back, or remove that file to have a new split made, and train again"
        )
    return split, path


def random_split(names: list[str], fractions: tuple[float, ...], split_seed: int) -> dict[str, list[str]]:
    """The class names in random order divided into train, val and test by ``fractions``; at least one class each.

    UserError for fewer than three names.
    """
    if len(names) < len(SPLIT_ALIASES):
        raise UserError(f"{len(names)} classes cannot be split into train, val and test; give 3 or more")
    shuffled = random.Random(split_seed).sample(names, len(names))
    test, val = (max(1, round(part * len(names))) for part in (fractions[2], fractions[1]))
    test = min(test, len(names) - 2)
    val = min(val, len(names) - 1 - test)
    parts = {"train": shuffled[test + val :], "val": shuffled[test : test + val], "test": shuffled[:test]}
    return {split: sorted(part) for split, part in parts.items()}


def _write_split(path: Path, folder: Path, split: dict[str, list[str]]) -> None:
    """Store the split for later runs. If that fails, a line on stderr says so; the same split is then drawn again."""
    text = json.dumps({"root": str(folder), "classes": split}, indent=1, ensure_ascii=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, text.encode("utf-8"))
        note(f"the classes of {folder} were split at random; the split is stored in {path}")
    except OSError as error:
        note(f"cannot write the split {path} ({error}); it is drawn again next time")
