"""The classes of train, val and test. Splits that the user does not give are drawn at random and stored."""

import json
import math
import random
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import Error, note
from ..files.atomic import write_durably
from ..files.cache_folder import cache_folder, writing_allowed
from ..files.plain_text import first_few
from ..files.regular import read_regular
from .dataset_facts import Names
from .files.cache import fingerprint
from .images.layouts import SPLIT_WORDS, FoundImages, listed
from .images.scan import Listing
from .source import SPLITS

_MAX_SPLIT_BYTES = 100_000_000


class ThreeSplits(NamedTuple):
    """The files of train, val and test by class."""

    listing: Listing
    origin: str  # where the split is from, for reports
    shared: list[str]  # classes in more than one split
    divided: tuple[str, ...]  # splits that were drawn at random from the same classes


def random_split(names: list[str], fractions: tuple[float, ...], split_seed: int) -> Names:
    """Divide class names at random into train, val and test by ``fractions``; each gets at least one.

    Raises Error for fewer than three names.
    """
    return divide(names, dict(zip(SPLITS, fractions, strict=True)), split_seed)


def divide(names: list[str], fractions: Mapping[str, float], seed: int) -> Names:
    """Divide names at random between the splits of ``fractions``, which add up to 1; each gets at least one.

    The first split gets the rest. Raises Error if there are fewer names than splits.
    """
    first, *others = fractions
    if len(names) < len(fractions):
        wanted = f"{', '.join([first, *others[:-1]])} and {others[-1]}"
        raise Error(f"{len(names)} classes cannot be split into {wanted}; give {len(fractions)} or more")
    rest, found = random.Random(seed).sample(names, len(names)), Names()
    for waiting, split in zip(range(len(others), 0, -1), reversed(others), strict=True):
        size = min(max(1, round(fractions[split] * len(names))), len(rest) - waiting)
        found[split], rest = sorted(rest[:size]), rest[size:]
    return {first: sorted(rest), **{split: found[split] for split in others}}


def stored_split(root: Path, classes: Collection[str], fractions: Mapping[str, float], seed: int) -> tuple[Names, Path]:
    """Divide the classes of ``root`` once, see `divide`; the returned file stores the split for later calls.

    Raises Error if the classes have changed since then. A new split could move training classes into test.
    """
    whole = tuple(fractions) == tuple(SPLITS)
    key = fingerprint(str(root), list(fractions.values()) if whole else list(fractions.items()), seed)
    path = cache_folder() / "splits" / f"{root.name}-{key}.json"
    if not path.exists():
        split = divide(sorted(classes), fractions, seed)
        if writing_allowed():
            _write_split(path, root, split)
        return split, path
    split = _read_split(path, fractions)
    changed = sorted({name for part in split.values() for name in part} ^ set(classes))
    if changed:
        raise Error(
            f"{root}: class {', '.join(changed[:3])} differs from the split in {path}; "
            f"put the folders back, or remove that file and train again with a new split"
        )
    return split, path


def _read_split(path: Path, splits: Collection[str]) -> Names:
    """Read a split from its file; Error if it cannot be read."""
    try:
        content = json.loads(read_regular(path, _MAX_SPLIT_BYTES))["classes"]
        return {split: [str(name) for name in content[split]] for split in splits}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Error(f"{path}: not a readable split ({error}); remove it, and a new one is made") from error


def _write_split(path: Path, root: Path, split: Names) -> None:
    """Store the split for later runs. If that fails, print a line on stderr; the next run draws it again."""
    text = json.dumps(
        {"root": str(root), "classes": split}, indent=1
    )  # ASCII, because names of folders may not be UTF-8
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, text.encode("utf-8"))
        note(f"the classes of {root} were split at random; the split is stored in {path}")
    except OSError as error:
        note(f"cannot write the split {path} ({error}); it is drawn again next time")


def three_splits(
    found: FoundImages, root: Path, fractions: tuple[float, ...], seed: int, *, allow_shared: bool
) -> ThreeSplits:
    """The images of each split. Without splits, classes are divided by ``fractions`` (train, val, test) and ``seed``.

    A missing split gets classes of train, or of the largest split if train is missing, too. Raises Error for a class in
    two splits, unless ``allow_shared``, and for too few classes.
    """
    given = found.splits or {}
    shared = _shared_classes(given)
    if shared and not allow_shared:
        raise Error(_describe_shared(root, given, shared))
    lacking = [split for split in SPLITS if split not in given]
    if not lacking:
        return ThreeSplits(given, found.origin, shared, ())
    if not given:
        names, file = stored_split(root, found.classes, dict(zip(SPLITS, fractions, strict=True)), seed)
        listing = {split: {name: found.classes[name] for name in names[split]} for split in SPLITS}
        return ThreeSplits(listing, f"random split {file.stem}", [], tuple(SPLITS))
    giver = "train" if "train" in given else max(given, key=lambda split: len(given[split]))
    divided = (giver, *lacking)
    names, file = stored_split(root, given[giver], _shares(divided, fractions), seed)
    listing = {
        split: {name: given[giver][name] for name in names[split]} if split in divided else given[split]
        for split in SPLITS
    }
    origin = f"{found.origin}; {listed(lacking)} of the classes of {giver}, random split {file.stem}"
    return ThreeSplits(listing, origin, _shared_classes(listing), divided)


def _shares(divided: Collection[str], fractions: tuple[float, ...]) -> dict[str, float]:
    """The fractions of the ``divided`` splits, scaled to add up to 1."""
    size_of = dict(zip(SPLITS, fractions, strict=True))
    total = sum(size_of[split] for split in divided) or 1
    return {split: size_of[split] / total for split in divided}


def _shared_classes(listing: Listing) -> list[str]:
    """The classes in more than one split."""
    counts = Counter(name for classes in listing.values() for name in classes)
    return sorted(name for name, count in counts.items() if count > 1)


def _describe_shared(root: Path, present: Listing, shared: list[str]) -> str:
    """The error for classes in several splits, as in data sets for ordinary classification."""
    largest = max(present, key=lambda split: len(present[split]))
    entries = root.iterdir() if root.is_dir() else ()
    folder = next((entry for entry in entries if SPLIT_WORDS.get(entry.name.lower()) == largest), None)
    cure = f"data.root={folder}" if folder else "data.layout=classes"
    return (
        f"{root}: class {first_few(shared)} is in more than one split, so test classes would not be unseen. "
        f"Give {cure} to split classes at random, or data.shared_classes=true to test on classes seen in training; or "
        f"put each class into one split"
    )


def check_ways(splits: ThreeSplits, fractions: tuple[float, ...], ways: dict[str, int]) -> None:
    """Raise Error if a random split has too few classes for ``ways``, split -> classes of a task.

    The message names fractions that give enough, if there are any.
    """
    small = next((part for part in splits.divided if len(splits.listing[part]) < ways[part]), None)
    if small is None:
        return
    classes = sum(len(splits.listing[part]) for part in splits.divided)
    needed = sum(ways[part] for part in splits.divided)
    cure = f"give fewer ways, or {needed} classes or more"
    if classes >= needed:
        sizes = ",".join(map(str, _fractions_for(ways, splits.divided, fractions, classes)))
        cure = f"give data.fractions=[{sizes}]"
    key = "train_ways" if small == "train" and ways["train"] != ways["test"] else "ways"
    raise Error(
        f"data.{key} = {ways[small]}: split {small}, made at random, has {len(splits.listing[small])} of {classes} "
        f"classes, fewer than a task needs; {cure}"
    )


def _fractions_for(
    ways: dict[str, int], divided: tuple[str, ...], fractions: tuple[float, ...], classes: int
) -> list[float]:
    """Fractions of two digits that give each ``divided`` split enough classes for a task. The first gets the rest."""
    sizes = dict(zip(SPLITS, fractions, strict=True))
    share = sum(size for split, size in sizes.items() if split in divided)
    first, *others = divided
    for split in others:
        sizes[split] = math.ceil(100 * share * ways[split] / classes) / 100
    sizes[first] = round(1 - sum(size for split, size in sizes.items() if split != first), 2)
    return list(sizes.values())
