"""Your own images: a folder a class, split by you or, once and for all, at random."""

import json
import random
import sys
from pathlib import Path
from typing import Literal

import torch

from ...atomic_files import write_durably
from ...errors import UserError
from ...ranges import Count, Natural, Unit, Ways
from ..episodes import episodes
from ..files.cache import fingerprint
from ..files.find import cache_folder
from ..images import image_store, listing
from ..images.decode import Form
from ..images.listing import Classes, Listing
from ..source import Source


def folder(
    *,
    seed: int,
    device: torch.device,
    root: str,
    size: Count = 84,
    channels: Literal[1, 3] = 3,
    ways: Ways | tuple[Ways, Ways] = 5,
    shots: Count | tuple[Count, Count] = 1,
    queries: Count | tuple[Count, Count] = 15,
    fractions: tuple[Unit, Unit, Unit] = (0.64, 0.16, 0.2),
    split_seed: Natural = 0,
    strict: bool = False,
) -> Source:
    """Your own images: root/train/CLASS/*, root/val/.., root/test/.., or root/CLASS/*, which is split at random.

    Of every image the middle square is brought to ``size`` x ``size``, with 1 channel (grey) or 3, from 0 to 1.
    Without folders train, val and test, the classes are split by ``fractions`` and ``split_seed``, and the split is
    written into the cache folder, so that it stays. Unreadable images are named and left out, or an error if
    ``strict``. A range, such as ``ways: [3, 8]``, makes tasks of different sizes.
    """
    place = Path(root).expanduser().resolve()
    found, whose = listed(place, root, fractions, split_seed)
    images = image_store.from_files("folder", found, Form(size, channels, crop=True), strict=strict)
    names = {split: list(classes) for split, classes in found.items()}
    total = sum(len(files) for classes in found.values() for files in classes.values())
    left_out = total - int(images.count.sum())
    about = {"data": "folder", "files": [str(place)], "split": whose, "unreadable": left_out}
    return episodes(
        image_store.cut(images, names, device),
        seed=seed,
        ways=ways,
        shots=shots,
        queries=queries,
        about=about,
        names=names,
    )


def listed(place: Path, root: str, fractions: tuple[float, ...], split_seed: int) -> tuple[Listing, str]:
    """The files by split and class, and whose split it is."""
    if not place.is_dir():
        raise UserError(f"data.root = {root}: no such folder; name the one that has a folder of images for each class")
    parts = listing.split_paths(place)
    if parts:
        return listing.from_split_folders(parts), "folders train, val and test"
    half = [name for names in listing.SPLITS.values() for name in names if (place / name).is_dir()]
    if half:
        raise UserError(
            f"{place}: has {' and '.join(half)}, and a split needs all of train, val and test; add what is missing, or "
            f"put the classes themselves there to have them split"
        )
    classes = listing.from_classes(place)
    split, path = fixed_split(place, classes, fractions, split_seed)
    return listing.from_lists(split, place), f"random split {path.stem}"


def fixed_split(
    place: Path, classes: Classes, fractions: tuple[float, ...], split_seed: int
) -> tuple[dict[str, list[str]], Path]:
    """The split in the user's cache folder, made and written if there is none. The folder of images is only read.

    UserError if the classes are no longer those that were split: a new one could only be put into some split by
    moving others, and what was trained on would then be tested on.
    """
    key = fingerprint(str(place), list(fractions), split_seed)
    path = cache_folder() / "splits" / f"{place.name}-{key}.json"
    if not path.exists():
        return write_split(path, place, random_split(sorted(classes), fractions, split_seed)), path
    try:
        split = json.loads(path.read_text(encoding="utf-8"))["classes"]
        split = {name: [str(cls) for cls in split[name]] for name in listing.SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a split that can be read ({error}); remove it to have a new one made") from error
    then = {cls for part in split.values() for cls in part}
    changed = sorted(then ^ classes.keys())
    if changed:
        raise UserError(
            f"{place}: class {', '.join(changed[:3])} came or went since the split in {path} was made; a split is "
            f"fixed: put the folders back, or remove that file to have a new split made, and train anew"
        )
    return split, path


def random_split(names: list[str], fractions: tuple[float, ...], split_seed: int) -> dict[str, list[str]]:
    """The names dealt to train, val and test; each gets a class at least."""
    if len(names) < len(listing.SPLITS):
        raise UserError(f"{len(names)} classes cannot be split into train, val and test; give 3 or more")
    shuffled = random.Random(split_seed).sample(names, len(names))
    test, val = (max(1, round(part * len(names))) for part in (fractions[2], fractions[1]))
    test = min(test, len(names) - 2)
    val = min(val, len(names) - 1 - test)
    parts = {"train": shuffled[test + val :], "val": shuffled[test : test + val], "test": shuffled[:test]}
    return {split: sorted(part) for split, part in parts.items()}


def write_split(path: Path, place: Path, split: dict[str, list[str]]) -> dict[str, list[str]]:
    """Keep the split for all later runs; without a folder that can be written it is the same as long as classes are."""
    text = json.dumps({"root": str(place), "classes": split}, indent=1, ensure_ascii=False)
    try:
        write_durably(path, text.encode("utf-8"))
        print(f"fmaml: the classes of {place} were split at random; the split is kept as {path}", file=sys.stderr)
    except OSError as error:
        print(f"fmaml: cannot keep the split as {path} ({error}); it is drawn again next time", file=sys.stderr)
    return split
