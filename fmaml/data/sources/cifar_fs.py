"""CIFAR-FS (Bertinetto, Henriques, Torr and Vedaldi, ICLR 2019): the 100 classes of CIFAR-100 (Krizhevsky 2009).

Each class has 600 images, 32x32. The split has 64, 16 and 20 classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch

from ...setting_types import (
    Change,
    FreeOnResume,
    KeepsTestTasks,
    Size,
    SizeOrRange,
    TrainBatch,
    TrainShots,
    TrainWays,
    WaysOrRange,
)
from ..convert_images import of_form
from ..dataset_facts import HUNDRED_CLASSES, class_names, describe_sample, order_classes
from ..episodes import Episode, episodes
from ..files.find import DataFiles, Download, find_or_download
from ..images.cifar100_files import (
    CIFAR100_ARCHIVE,
    CIFAR100_MD5,
    CIFAR100_URL,
    find_cifar100,
    is_unpacked_cifar100,
    read_cifar100,
)
from ..images.image_cache import ImageStore, store_from_listing
from ..images.scan import list_class_folders, split_paths
from ..preprocessing import Form
from ..source import Source

_FILES = DataFiles(
    name="CIFAR-FS",
    folders=("cifar-fs", "cifar_fs", "cifar-100", "cifar100"),
    expected="data/ with a folder of images for each class, or the same in train/, val/ and test/, or "
    "cifar-100-python.tar.gz or the folder unpacked from it",
    downloads=(Download(CIFAR100_URL, f"cifar-100/{CIFAR100_ARCHIVE}", CIFAR100_MD5[CIFAR100_ARCHIVE]),),
)
_FORM = Form(32, 3, "squeeze")


def cifar_fs(
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
    size: Size = 32,
    root: Annotated[str | None, FreeOnResume] = None,
    download: Annotated[bool, FreeOnResume] = True,
) -> Source:
    """Photographs of 100 classes, 32x32, three channels in [0, 1], in the 64 / 16 / 20 split of Bertinetto et al.

    Returns a source of N-way K-shot tasks, see `fmaml.data.episodes.Episode`: x float32 [tasks, n, 3, 32, 32], y int64
    [tasks, n]. With another ``size`` images are resized to it, in pixels, by bicubic interpolation.

    ``root`` is the folder with the files. Without it fmaml searches for them, and downloads CIFAR-100 if ``download``.
    Images are on ``device``. Tasks depend only on ``seed``. Raises Error if the files are missing, damaged or not
    CIFAR-FS, or a class is too small for the tasks.

    Bertinetto, Henriques, Torr and Vedaldi, "Meta-learning with differentiable closed-form solvers", ICLR 2019.
    Images: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    names = {split: class_names("cifar_fs", split) for split in HUNDRED_CLASSES}
    path = find_or_download(_find_images, root, _FILES, allow_download=download)
    is_cifar100 = path.is_file() or is_unpacked_cifar100(path)
    store = read_cifar100(path, names) if is_cifar100 else _read_image_files(path, names)
    splits = store.splits(names, device)
    split_name = f"Bertinetto et al.'s 64/16/20{describe_sample(store.counts.tolist())}"
    about = {"data": "cifar_fs", "files": [str(path)], "split": split_name}
    about |= {"license": "none stated; cite Krizhevsky 2009 and Bertinetto et al. 2019"}
    episode = Episode(ways, shots, queries, train_ways, train_shots, augment, train_batch)
    return of_form(episodes(splits, seed, episode, about, names=names, form=_FORM), _FORM._replace(size=size))


def _find_images(folder: Path) -> Path | None:
    """Find the data: the folder itself if it has images by class, or else CIFAR-100 in it."""
    return folder if (folder / "data").is_dir() or split_paths(folder) else find_cifar100(folder)


def _read_image_files(folder: Path, names: dict[str, list[str]]) -> ImageStore:
    """Read the images of ``data/<class>/*``, or else of a folder for each split."""
    if (folder / "data").is_dir():
        every = list_class_folders(folder / "data")
        found = {split: {name: every[name] for name in own if name in every} for split, own in names.items()}
    else:
        found = {split: list_class_folders(path) for split, path in (split_paths(folder) or {}).items()}
    listing = order_classes(found, names, _FILES.name, folder)
    return store_from_listing("cifar-fs", folder, listing, _FORM, strict=True)
