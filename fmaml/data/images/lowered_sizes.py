"""Sizes of tasks that a user's classes allow: no more ways, shots and queries than there are classes and pictures."""

from pathlib import Path

from ...errors import Error, note
from ...files.plain_text import counted
from ..class_splits import divide
from ..episodes import Episode
from ..ragged import bounds, queries_a_class
from ..source import SPLITS
from .layouts import FoundImages
from .scan import Classes

LEAST_CLASSES = 4  # for training; fewer need none
LEAST_SPLIT = 6  # classes, so that validation and test have two each that no other split has
MOST_LEFT_OUT = 0.2  # of the classes with two pictures or more

Fractions = tuple[float, float, float]


def fitting_sizes(
    root: Path, found: FoundImages, episode: Episode, fractions: Fractions, seed: int
) -> tuple[FoundImages, Episode, Fractions]:
    """The classes that are large enough, and the largest sizes and fractions up to those given that they allow.

    A line says the sizes. Four or five classes are divided into two parts, and validation and test share the
    second. Error for fewer classes, or if each has only one picture.
    """
    if found.splits and found.splits.keys() > {"train"}:
        episode = fewer_examples(root, found.classes, episode)
        splits = {split: large_enough(classes, episode) for split, classes in found.splits.items()}
        found = found._replace(
            splits=splits, classes={name: files for part in splits.values() for name, files in part.items()}
        )
        return found, fewer_ways(episode, {split: len(classes) for split, classes in splits.items()}), fractions
    if found.splits:  # train alone: its classes are divided
        found = found._replace(splits=None)
    episode = fewer_examples(root, found.classes, episode)
    found = found._replace(classes=large_enough(found.classes, episode))
    count = len(found.classes)
    if count < LEAST_CLASSES:
        raise Error(
            f"{root}: {count} of {LEAST_CLASSES} classes that training needs at least; "
            f"`fmaml adapt photographs --support {root} --out FILE` needs no training"
        )
    if count < LEAST_SPLIT:
        note(f"{count} classes: two of them serve both validation and test")
        found = found._replace(splits=two_parts(found.classes, seed), origin=f"random split {seed}")
        return found, fewer_ways(episode, {"train": count - 2, "test": 2}), fractions
    held = min(max(2, round(fractions[2] * count)), (count - 2) // 2)
    fractions = ((count - 2 * held) / count, held / count, held / count)
    return found, fewer_ways(episode, {"train": count - 2 * held, "test": held}), fractions


def sizes_of_a_test(root: Path, classes: Classes, episode: Episode) -> tuple[Classes, Episode]:
    """The classes that are large enough, and the sizes of a test's tasks that they allow; Error for fewer than two."""
    episode = fewer_examples(root, classes, episode)
    kept = large_enough(classes, episode)
    if len(kept) < 2:
        raise Error(f"{root}: one class has two pictures or more, and a test needs two such classes; give more of each")
    return kept, fewer_ways(episode, {"test": len(kept)})


def fewer_examples(root: Path, classes: Classes, episode: Episode) -> Episode:
    """The episode with as many shots and queries as four fifths of the classes of two pictures or more have."""
    counts = sorted(len(files) for files in classes.values() if len(files) > 1)
    if not counts:
        raise Error(f"{root}: every class has one picture, and a task needs two of a class; give more of each")
    each = counts[int(MOST_LEFT_OUT * len(counts))]
    shots = min(episode.most("test")["shots"], each // 2)
    queries = min(episode.most("test")["queries"], each - shots)
    return episode._replace(shots=shots, queries=queries, train_shots=None)


def large_enough(classes: Classes, episode: Episode) -> Classes:
    """The classes with pictures for a task; a line counts the others."""
    needed = bounds(episode.shots)[1] + bounds(episode.queries)[1]
    kept = {name: files for name, files in classes.items() if len(files) >= needed}
    small = sorted(classes.keys() - kept.keys())
    if small:
        note(f"classes of fewer than {counted(needed, 'picture')} left out: {len(small)}, such as {small[0]}")
    return kept


def two_parts(classes: Classes, seed: int) -> dict[str, Classes]:
    """Classes for training, and two others for validation and test alike."""
    share = 2 / len(classes)
    names = divide(sorted(classes), {"train": 1 - share, "test": share}, seed)
    parts = {part: {name: classes[name] for name in own} for part, own in names.items()}
    return {split: parts["train" if split == "train" else "test"] for split in SPLITS}


def fewer_ways(episode: Episode, classes: dict[str, int]) -> Episode:
    """The episode with at most as many ways as each split has classes, and a line if it has other sizes than asked."""
    held = min(count for split, count in classes.items() if split != "train")
    ways = min(bounds(episode.ways)[1], held)
    train_ways = min(episode.train_ways or bounds(episode.ways)[1], classes.get("train", held))
    training = f"; {train_ways} ways in training" if "train" in classes and not episode.train_batch else ""
    note(f"tasks: {ways}-way {bounds(episode.shots)[1]}-shot, {queries_a_class(episode.queries)}{training}")
    return episode._replace(ways=ways, train_ways=train_ways)
