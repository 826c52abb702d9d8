"""Mini-ImageNet (Vinyals et al., NeurIPS 2016): 100 classes of 600 photographs, 84x84, in the split of Ravi and
Larochelle (ICLR 2017) into 64, 16 and 20 classes. ImageNet's terms forbid passing it on, so nothing is downloaded.
"""

from pathlib import Path

import numpy as np
import torch

from ...errors import UserError
from ...ranges import Count, Ways
from ..episodes import episodes
from ..files.find import find, missing
from ..files.pickles import read_pickle
from ..images import image_store, listing
from ..images.decode import Form
from ..images.image_store import Album
from ..published import HUNDRED_CLASSES, class_names, describe_sample
from ..source import Source

NAME = "mini-ImageNet"
FOLDERS = ("mini-imagenet", "mini_imagenet", "miniimagenet", "miniImageNet")
EXPECTED = (
    "images/ with train.csv, val.csv and test.csv, or the folders train/, val/ and test/ with a folder a class, or "
    "mini-imagenet-cache-train.pkl, -val.pkl and -test.pkl"
)
SIZE = 84
FORM = Form(SIZE, 3, crop=False)  # squeezed, as in the original MAML code


def mini_imagenet(
    *,
    seed: int,
    device: torch.device,
    ways: Ways | tuple[Ways, Ways] = 5,
    shots: Count | tuple[Count, Count] = 1,
    queries: Count | tuple[Count, Count] = 15,
    root: str | None = None,
) -> Source:
    """Photographs of 100 classes, split 64 / 16 / 20 as by Ravi and Larochelle, 84x84, three channels from 0 to 1.

    ``root`` is the folder with the files; without it they are looked for. A range, such as ``ways: [3, 8]``, makes
    tasks of different sizes.
    """
    place = find(there, root, FOLDERS)
    if place is None:
        raise missing(NAME, EXPECTED, root, FOLDERS)
    names = {split: class_names("mini_imagenet", split) for split in HUNDRED_CLASSES}
    images = from_pickles(place, names) or from_files(place, names)
    whose = f"Ravi and Larochelle's 64/16/20{describe_sample(images.count.tolist())}"
    about = {"data": "mini_imagenet", "files": [str(place)], "split": whose}
    return episodes(
        image_store.cut(images, names, device),
        seed=seed,
        ways=ways,
        shots=shots,
        queries=queries,
        about=about,
        names=names,
    )


def there(folder: Path) -> Path | None:
    """The folder, if it has mini-ImageNet in one of its forms."""
    tables = listing.split_paths(folder, "{}.csv") and (folder / "images").is_dir()
    return folder if tables or pickles(folder) or listing.split_paths(folder) else None


def pickles(folder: Path) -> dict[str, Path] | None:
    return listing.split_paths(folder, "mini-imagenet-cache-{}.pkl")


def from_files(place: Path, names: dict[str, list[str]]) -> Album:
    """Tables beside ``images/``, or else a folder a split."""
    tables = listing.split_paths(place, "{}.csv")
    if tables and (place / "images").is_dir():
        found = listing.from_tables(tables, place / "images")
    else:
        parts = listing.split_paths(place)
        assert parts is not None  # or `there` would not have taken it
        found = listing.from_split_folders(parts)
    return image_store.from_files("mini-imagenet", listing.in_order(found, names, NAME, place), FORM, strict=True)


def from_pickles(place: Path, names: dict[str, list[str]]) -> Album | None:
    """The three pickles that are passed around, if they are all there."""
    parts = pickles(place)
    if parts is None:
        return None
    facts = [image_store.state(str(path)) for path in parts.values()]
    return image_store.kept("mini-imagenet", facts, lambda: unpickled(parts, names))


def unpickled(parts: dict[str, Path], names: dict[str, list[str]]) -> Album:
    """Dicts of ``image_data``, uint8 [n, 84, 84, 3], and ``class_dict``, class -> numbers of its images."""
    room = sum(path.stat().st_size for path in parts.values()) // (3 * SIZE * SIZE)  # images at most
    images, count = torch.empty(room, 3, SIZE, SIZE, dtype=torch.uint8), []
    for split, path in parts.items():
        pixels, classes = checked(path, read_pickle(path))
        listing.in_order({split: classes}, {split: names[split]}, NAME, path)
        for name in names[split]:
            first = sum(count)
            count.append(len(classes[name]))
            images[first : first + count[-1]] = torch.from_numpy(pixels[classes[name]].transpose(0, 3, 1, 2))
    return Album(images[: sum(count)], torch.tensor(count))


def checked(path: Path, found: object) -> tuple[np.ndarray, dict]:
    """``image_data`` and ``class_dict``; UserError unless they are there and fit each other."""
    match found:
        case {
            "image_data": np.ndarray(shape=(_, 84, 84, 3), dtype=np.uint8) as pixels,
            "class_dict": dict() as classes,
        }:
            numbers = classes.values()
            if all(within(rows, len(pixels)) for rows in numbers) and sum(map(len, numbers)) <= len(pixels):
                return pixels, classes
    raise UserError(
        f"{path}: not a cache of mini-ImageNet; it must be a dict of image_data, uint8 [n, 84, 84, 3], and class_dict, "
        f"from each class to the numbers of its images: copy or download it again"
    )


def within(rows: object, total: int) -> bool:
    """Whether these are row numbers, one or more."""
    try:
        numbers = np.asarray(rows)
    except ValueError:
        return False
    whole = numbers.ndim == 1 and numbers.dtype.kind in "iu" and len(numbers) > 0
    return whole and numbers.min() >= 0 and numbers.max() < total
