"""Train, val and test out of what a folder or a table of images has; a split that lacks is made of the others."""

import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError
from ..class_split import kept_split
from ..source import SPLITS
from .layouts import SPLIT_WORDS, FoundImages, listed
from .listing import Listing


class ThreeSplits(NamedTuple):
    """The files of train, val and test by class."""

    listing: Listing
    origin: str  # where the split is from, for reports
    shared: list[str]  # the classes that are in more than one
    divided: tuple[str, ...]  # the splits that were made at random, out of each other


def three_splits(
    found: FoundImages, root: Path, fractions: tuple[float, ...], seed: int, *, allow_shared: bool
) -> ThreeSplits:
    """The images of each split. Without splits, classes are divided by ``fractions`` (train, val, test) and ``seed``.

    A split that lacks gets classes of train, or if that lacks, of the largest there is. UserError for a class in two
    splits, unless ``allow_shared``, and for too few classes.
    """
    sizes = dict(zip(SPLITS, fractions, strict=True))
    if found.splits is None:
        split, file = kept_split(root, found.classes, sizes, seed)
        listing = {part: {name: found.classes[name] for name in names} for part, names in split.items()}
        return ThreeSplits(listing, f"random split {file.stem}", [], tuple(SPLITS))
    shared = shared_classes(found.splits)
    if shared and not allow_shared:
        raise UserError(_describe_shared(root, found.splits, shared))
    lacking = [split for split in SPLITS if split not in found.splits]
    if not lacking:
        return ThreeSplits(found.splits, found.origin, shared, ())
    return _with_lacking(found.splits, found.origin, root, sizes, seed)


def shared_classes(listing: Listing) -> list[str]:
    """The classes that are in more than one split."""
    counts = Counter(name for classes in listing.values() for name in classes)
    return sorted(name for name, count in counts.items() if count > 1)


def check_ways(splits: ThreeSplits, fractions: tuple[float, ...], ways: dict[str, int]) -> None:
    """UserError if a split that was made at random has too few classes for ``ways``, split -> classes of a task.

    It names fractions that give enough, if there are any.
    """
    small = next((part for part in splits.divided if len(splits.listing[part]) < ways[part]), None)
    if small is None:
        return
    classes = sum(len(splits.listing[part]) for part in splits.divided)
    needed = sum(ways[part] for part in splits.divided)
    if classes < needed:
        cure = f"give fewer ways, or {needed} classes or more"
    else:
        first, *others = splits.divided
        share = sum(size for part, size in zip(SPLITS, fractions, strict=True) if part in splits.divided)
        sizes = dict(zip(SPLITS, fractions, strict=True))
        sizes |= {part: round(math.ceil(100 * share * ways[part] / classes) / 100, 2) for part in others}
        sizes[first] = round(1 - sum(sizes[part] for part in SPLITS if part != first), 2)
        cure = f"give data.fractions=[{','.join(str(sizes[part]) for part in SPLITS)}]"
    key = "train_ways" if small == "train" and ways["train"] != ways["test"] else "ways"
    raise UserError(
        f"data.{key} = {ways[small]}: split {small}, made at random, has {len(splits.listing[small])} of {classes} "
        f"classes, and those of a task are all different; {cure}"
    )


def _with_lacking(present: Listing, origin: str, root: Path, sizes: dict[str, float], seed: int) -> ThreeSplits:
    """All three splits: those that lack get a share of the classes of one that is there."""
    lacking = [split for split in SPLITS if split not in present]
    giver = "train" if "train" in present else max(present, key=lambda split: len(present[split]))
    parts = {split: sizes[split] for split in (giver, *lacking)}
    total = sum(parts.values()) or 1
    split, file = kept_split(root, present[giver], {part: size / total for part, size in parts.items()}, seed)
    every = {**present, **{part: {name: present[giver][name] for name in names} for part, names in split.items()}}
    listing = {part: every[part] for part in SPLITS}
    origin = f"{origin}; {listed(lacking)} of the classes of {giver}, random split {file.stem}"
    return ThreeSplits(listing, origin, shared_classes(listing), tuple(parts))


def _describe_shared(root: Path, present: Listing, shared: list[str]) -> str:
    """The error for classes that are in several splits, as in sets made for ordinary classification."""
    some = ", ".join(shared[:3]) + (f" and {len(shared) - 3} more" if len(shared) > 3 else "")
    largest = max(present, key=lambda split: len(present[split]))
    folders = [
        entry for entry in (root.iterdir() if root.is_dir() else ()) if SPLIT_WORDS.get(entry.name.lower()) == largest
    ]
    cure = f"data.root={folders[0]}" if folders else "data.layout=classes"
    return (
        f"{root}: class {some} is in more than one split, so test classes would not be unseen; give {cure} to have "
        f"classes split at random, data.shared_classes=true to test on classes seen in training, or put each class "
        f"into one split"
    )
