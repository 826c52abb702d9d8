"""Class splits and class counts of the published data sets. Imports no torch: config checks use it."""

from pathlib import Path
from typing import TypeVar

from ..errors import Error

Names = dict[str, list[str]]  # split -> the names of its classes
Files = TypeVar("Files")  # the files of a class, in any type

DRAWINGS_PER_CLASS = 20  # Omniglot and glyphs
IMAGES_PER_CLASS = 600  # complete mini-ImageNet and CIFAR-FS
CHARACTER_SIZE = 28  # height and width in pixels of Omniglot and glyphs, one channel
OMNIGLOT_CLASSES = {"train": 1100, "val": 100, "test": 423}  # before rotation, as in the original MAML code
HUNDRED_CLASSES = {"train": 64, "val": 16, "test": 20}  # mini-ImageNet and CIFAR-FS


def class_names(data: str, split: str) -> list[str]:
    """The classes of a split in their fixed order, read from the shipped file ``splits/DATA_SPLIT.txt``.

    ``data`` is "omniglot", "mini_imagenet", "cifar_fs" or "udhr". The classes of "udhr" are languages.
    """
    path = Path(__file__).parent / "splits" / f"{data}_{split}.txt"
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def describe_sample(counts: list[int]) -> str:
    """A remark for the split's name if classes with ``counts`` images are incomplete, else ""."""
    least, most = min(counts), max(counts)
    if least == most == IMAGES_PER_CLASS:
        return ""
    each = f"{least}" if least == most else f"{least} to {most}"
    return f", a sample with {each} of {IMAGES_PER_CLASS} images a class"


def order_classes(
    listing: dict[str, dict[str, Files]], names: Names, data: str, path: Path
) -> dict[str, dict[str, Files]]:
    """Sort the classes of a listing in the order of ``names``. Raises Error unless each split has exactly these.

    ``data`` is the data set and ``path`` the origin of the listing, both for messages.
    """
    for split, expected in names.items():
        extra = sorted(listing[split].keys() - set(expected))
        absent = sorted(set(expected) - listing[split].keys())
        if extra or absent:
            parts = [f"{verb} {', '.join(some[:3])}" for verb, some in (("has", extra), ("lacks", absent)) if some]
            raise Error(
                f"{path}: split {split} {' and '.join(parts)}; {data} has {len(expected)} fixed classes there. "
                f"Correct the folders, or give data.name=folder for your own split"
            )
    return {split: {name: listing[split][name] for name in expected} for split, expected in names.items()}
