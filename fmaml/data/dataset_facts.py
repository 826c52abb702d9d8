"""Class splits and class counts of the published data sets. Imports no torch: config checks use it."""

from pathlib import Path

DRAWINGS_PER_CLASS = 20  # Omniglot and glyphs
IMAGES_PER_CLASS = 600  # complete mini-ImageNet and CIFAR-FS
CHARACTER_SIZE = 28  # height and width in pixels of Omniglot and glyphs, one channel
OMNIGLOT_CLASSES = {"train": 1100, "val": 100, "test": 423}  # before rotation, as in the original MAML code
HUNDRED_CLASSES = {"train": 64, "val": 16, "test": 20}  # mini-ImageNet and CIFAR-FS


def class_names(data: str, split: str) -> list[str]:
    """The classes of a split in their fixed order, read from the shipped file ``splits/DATA_SPLIT.txt``.

    ``data`` is "omniglot", "mini_imagenet", "cifar_fs" or "udhr", whose classes are languages.
    """
    path = Path(__file__).parent / "splits" / f"{data}_{split}.txt"
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def describe_sample(counts: list[int]) -> str:
    """A remark for the split's name if classes with ``counts`` images are incomplete; "" if all are complete."""
    least, most = min(counts), max(counts)
    if least == most == IMAGES_PER_CLASS:
        return ""
    each = f"{least}" if least == most else f"{least} to {most}"
    return f", a sample with {each} of {IMAGES_PER_CLASS} images a class"
