"""Mini-ImageNet (Vinyals et al., NeurIPS 2016): 100 classes of 600 photographs, 84x84.

The split is that of Ravi and Larochelle (ICLR 2017): 64, 16 and 20 classes. ImageNet's terms forbid redistribution, so
nothing is downloaded.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from ...errors import Error
from ...setting_types import (
    Change,
    FreeOnResume,
    KeepsTestTasks,
    SizeOrRange,
    TrainBatch,
    TrainShots,
    TrainWays,
    WaysOrRange,
)
from ..dataset_facts import HUNDRED_CLASSES, class_names, describe_sample, order_classes
from ..episodes import Episode, episodes
from ..files.cache import file_stamp
from ..files.find import DataFiles, find_or_download
from ..files.pickles import read_pickle
from ..images.image_cache import ImageStore, cached_store, store_from_listing
from ..images.label_table import find_columns
from ..images.scan import Classes, list_class_folders, list_entries, split_paths
from ..preprocessing import Form
from ..source import Source
from ..tables.csv_table import read_csv

_FILES = DataFiles(
    name="mini-ImageNet",
    folders=("mini-imagenet", "mini_imagenet", "miniimagenet", "miniImageNet"),
    expected="images/ with train.csv, val.csv and test.csv, or the folders train/, val/ and test/ with a folder of "
    "images for each class, or mini-imagenet-cache-train.pkl, -val.pkl and -test.pkl",
)
_SIZE = 84  # pixels
_FORM = Form(_SIZE, 3, "squeeze")  # as in the original MAML code


def mini_imagenet(
    *,
    seed: int,
    device: torch.device,
    ways: WaysOrRange = 5,
    shots: SizeOrRange = 1,
    queries: SizeOrRange = 15,
    train_ways: TrainWays = None,
    train_shots: TrainShots = None,
    train_batch: TrainBatch = None,
    augment: Annotated[Sequence[Change], KeepsTestTasks] = (),
    root: Annotated[str | None, FreeOnResume] = None,
) -> Source:
    """Photographs of 100 classes, 84x84, three channels in [0, 1], in the 64 / 16 / 20 split of Ravi and Larochelle.

    Returns a source of N-way K-shot tasks, see `fmaml.data.episodes.Episode`: x float32 [tasks, n, 3, 84, 84], y int64
    [tasks, n].

    ``root`` is the folder with the files. Without it fmaml searches for them. Images are on ``device``. Tasks depend
    only on ``seed``. Raises Error if the files are missing, damaged or not mini-ImageNet, or a class is too small for
    the tasks.

    Vinyals et al., "Matching networks for one shot learning", NeurIPS 2016; Ravi and Larochelle, "Optimization as a
    model for few-shot learning", ICLR 2017.
    """
    folder = find_or_download(_find_images, root, _FILES)
    names = {split: class_names("mini_imagenet", split) for split in HUNDRED_CLASSES}
    store = _read_pickles(folder, names) or _read_image_files(folder, names)
    splits = store.splits(names, device)
    split_name = f"Ravi and Larochelle's 64/16/20{describe_sample(store.counts.tolist())}"
    about = {"data": "mini_imagenet", "files": [str(folder)], "split": split_name}
    about |= {"license": "ImageNet's: research only, not to be passed on"}
    episode = Episode(ways, shots, queries, train_ways, train_shots, augment, train_batch)
    return episodes(splits, seed, episode, about, names=names, form=_FORM)


def _find_images(folder: Path) -> Path | None:
    """Return the folder if it has mini-ImageNet in one of the layouts."""
    return folder if _image_tables(folder) or _pickle_paths(folder) or split_paths(folder) else None


def _image_tables(folder: Path) -> dict[str, Path] | None:
    """The CSV file of each split; None unless all three and ``images/`` are there."""
    return split_paths(folder, "{}.csv") if (folder / "images").is_dir() else None


def _pickle_paths(folder: Path) -> dict[str, Path] | None:
    """The pickle of each split; None unless all three are there."""
    return split_paths(folder, "mini-imagenet-cache-{}.pkl")


def _read_image_files(folder: Path, names: dict[str, list[str]]) -> ImageStore:
    """Read the images that tables list, or else those of a folder for each split."""
    tables, folders = _image_tables(folder), split_paths(folder) or {}
    if tables:
        listing = {split: list_table(path, folder / "images") for split, path in tables.items()}
    else:
        listing = {split: list_class_folders(path) for split, path in folders.items()}
    listing = order_classes(listing, names, _FILES.name, folder)
    return store_from_listing("mini-imagenet", folder, listing, _FORM, strict=True)


def list_table(path: Path, folder: Path) -> Classes:
    """List the images of a CSV file. They are in ``folder`` or in a subfolder for each class.

    Raises Error for an unreadable table or a missing image.
    """
    table, names, classes = read_csv(path, "data.root"), set(list_entries(folder).files), Classes()
    columns, _ = find_columns(folder / table.file, table)
    for row, cells in enumerate(table.rows):
        image, label = cells[columns.file], cells[columns.label]
        file = f"{folder}/{image}" if image in names else f"{folder}/{label}/{image}"
        if image not in names and not os.path.isfile(file):
            cure = "every image of the table must be there: unpack the images again, or remove the line"
            raise table.wrong(row, columns.file, f"not in {folder}; {cure}")
        classes.setdefault(label, []).append(file)
    return classes


def _read_pickles(folder: Path, names: dict[str, list[str]]) -> ImageStore | None:
    """Read the images of the three well-known pickles, and cache them; None unless all three are there."""
    paths = _pickle_paths(folder)
    if paths is None:
        return None
    facts = [file_stamp(str(path)) for path in paths.values()]
    return cached_store("mini-imagenet", facts, lambda: _unpickle(paths, names))


def _unpickle(paths: dict[str, Path], names: dict[str, list[str]]) -> ImageStore:
    capacity = sum(path.stat().st_size for path in paths.values()) // (3 * _SIZE * _SIZE)  # images at most
    images, counts = torch.empty(capacity, 3, _SIZE, _SIZE, dtype=torch.uint8), []
    for split, path in paths.items():
        pixels, classes = read_cache(path)
        order_classes({split: classes}, {split: names[split]}, _FILES.name, path)
        for name in names[split]:
            first = sum(counts)
            counts.append(len(classes[name]))
            images[first : first + counts[-1]] = torch.from_numpy(pixels[classes[name]].transpose(0, 3, 1, 2))
    return ImageStore(images[: sum(counts)], torch.tensor(counts))


def read_cache(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read ``image_data``, uint8 [n, 84, 84, 3], and ``class_dict``, class -> its row numbers. Error unless valid."""
    match read_pickle(path):
        case {
            "image_data": np.ndarray(shape=(_, 84, 84, 3), dtype=np.uint8) as pixels,
            "class_dict": dict() as classes,
        } if len(classes) <= sum(HUNDRED_CLASSES.values()):
            rows = {name: _row_numbers(part, len(pixels)) for name, part in classes.items()}
            if all(map(len, rows.values())) and sum(map(len, rows.values())) <= len(pixels):
                return pixels, rows
    raise Error(
        f"{path}: not a cache of mini-ImageNet, a dict of image_data, uint8 [n, 84, 84, 3], and class_dict, class -> "
        f"row numbers; copy or download it again"
    )


def _row_numbers(value: object, rows: int) -> np.ndarray:
    """Convert a value to integers [m] from 0 to ``rows`` - 1; empty if it is anything else."""
    is_flat = isinstance(value, list | tuple) and all(type(item) is int for item in value)
    if is_flat or isinstance(value, np.ndarray):
        numbers = np.asarray(value)
        if numbers.ndim == 1 and numbers.dtype.kind in "iu" and ((numbers >= 0) & (numbers < rows)).all():
            return numbers
    return np.empty(0, np.int64)
