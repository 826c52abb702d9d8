"""Classes divided at random between splits, once and for all: the division is kept, and used from then on."""

import json
import random
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from ..atomic_files import write_durably
from ..errors import UserError, note
from ..regular_files import read_regular
from .files.cache import fingerprint
from .files.find import cache_folder
from .files.writing import writing_allowed
from .source import SPLITS

Names = dict[str, list[str]]  # split -> the names of its classes
_MAX_SPLIT_BYTES = 100_000_000


class KeptSplit(NamedTuple):
    """A division of classes, and the file that it is kept in."""

    classes: Names
    file: Path


def kept_split(root: Path, classes: Collection[str], fractions: Mapping[str, float], seed: int) -> KeptSplit:
    """The division of the classes of ``root`` that was kept, or else a new one, which is then kept; as `divide`.

    UserError if the classes are no longer those that were divided: a new division would move classes between its
    parts, and models would then be tested on classes that they were trained on.
    """
    whole = tuple(fractions) == tuple(SPLITS)
    key = fingerprint(str(root), list(fractions.values()) if whole else list(fractions.items()), seed)
    path = cache_folder() / "splits" / f"{root.name}-{key}.json"
    if not path.exists():
        split = divide(sorted(classes), fractions, seed)
        if writing_allowed():
            _write_split(path, root, split)
        return KeptSplit(split, path)
    split = _read_split(path, fractions)
    changed = sorted({name for part in split.values() for name in part} ^ set(classes))
    if changed:
        raise UserError(
            f"{root}: class {', '.join(changed[:3])} was added or removed since the split in {path} was made; a "
            f"split is fixed: put the folders back, or remove that file to have a new split made, and train again"
        )
    return KeptSplit(split, path)


def random_split(names: list[str], fractions: tuple[float, ...], split_seed: int) -> Names:
    """The class names in random order divided into train, val and test by ``fractions``; at least one class each.

    UserError for fewer than three names.
    """
    return divide(names, dict(zip(SPLITS, fractions, strict=True)), split_seed)


def divide(names: list[str], fractions: Mapping[str, float], seed: int) -> Names:
    """The names in random order divided between the splits of ``fractions``, which add up to 1; at least one each.

    The first split gets what the others leave. UserError if there are fewer names than splits.
    """
    first, *others = fractions
    if len(names) < len(fractions):
        wanted = f"{', '.join([first, *others[:-1]])} and {others[-1]}"
        raise UserError(f"{len(names)} classes cannot be split into {wanted}; give {len(fractions)} or more")
    rest, found = random.Random(seed).sample(names, len(names)), Names()
    for waiting, split in zip(range(len(others), 0, -1), reversed(others), strict=True):
        size = min(max(1, round(fractions[split] * len(names))), len(rest) - waiting)
        found[split], rest = sorted(rest[:size]), rest[size:]
    return {first: sorted(rest), **{split: found[split] for split in others}}


def _read_split(path: Path, splits: Collection[str]) -> Names:
    """The division that the file holds; UserError if it cannot be read."""
    try:
        content = json.loads(read_regular(path, _MAX_SPLIT_BYTES))["classes"]
        return {split: [str(name) for name in content[split]] for split in splits}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a split that can be read ({error}); remove it to have a new one made") from error


def _write_split(path: Path, root: Path, split: Names) -> None:
    """Keep the division for later runs. If that fails, a line on stderr says so; it is then drawn again."""
    text = json.dumps({"root": str(root), "classes": split}, indent=1)  # in ASCII: names of folders may not be UTF-8
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, text.encode("utf-8"))
        note(f"the classes of {root} were split at random; the split is stored in {path}")
    except OSError as error:
        note(f"cannot write the split {path} ({error}); it is drawn again next time")
