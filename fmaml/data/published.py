"""What publications fixed about the data sets: class splits, numbers of classes. Imports no torch: config checks
read it.
"""

from pathlib import Path

CLASSES = {"train": 1100, "val": 100, "test": 423}  # characters before rotation, as in the original MAML code
DRAWINGS = 20  # of each character
SIZE = 28  # height and width in pixels, one channel
HUNDRED = {"train": 64, "val": 16, "test": 20}  # classes of mini-ImageNet, and of CIFAR-FS
EACH = 600  # images of each of their classes, where a set is complete
COUNTS = {"omniglot": CLASSES, "glyphs": CLASSES, "mini_imagenet": HUNDRED, "cifar_fs": HUNDRED}


def class_names(data: str, split: str) -> list[str]:
    """The classes of a split, in order, from the file that fixes them: one a line, remarks behind #."""
    path = Path(__file__).parent / "splits" / f"{data}_{split}.txt"
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def sample_in_words(count: list[int]) -> str:
    """What to add to the name of a split whose classes have so many images: nothing, if they are complete."""
    least, most = min(count), max(count)
    if least == most == EACH:
        return ""
    each = f"{least}" if least == most else f"{least} to {most}"
    return f", a sample with {each} of {EACH} images a class"
