"""Omniglot (Lake, Salakhutdinov and Tenenbaum, Science 2015): 1,623 characters, each drawn by 20 people."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch

from ...files.cache_folder import cache_folder
from ...setting_types import FreeOnResume, KeepsTestTasks, SizeOrRange, TrainBatch, TrainShots, TrainWays, WaysOrRange
from ..class_examples import consecutive_splits
from ..dataset_facts import CHARACTER_SIZE, OMNIGLOT_CLASSES, class_names
from ..episodes import Episode, episodes
from ..files.cache import cached, fingerprint
from ..files.find import DataFiles, Download, find_or_download
from ..images.omniglot_files import OMNIGLOT_PARTS, find_omniglot, read_drawings, stamp_parts
from ..preprocessing import CHARACTER_FORM
from ..source import Source

_URL = "https://github.com/brendenlake/omniglot/raw/master/python/"
_MD5 = {
    "images_background": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}
_CACHE_VERSION = 1  # increase if the same files give other tensors


def omniglot(
    *,
    seed: int,
    device: torch.device,
    ways: WaysOrRange = 5,
    shots: SizeOrRange = 1,
    queries: SizeOrRange = 5,
    train_ways: TrainWays = None,
    train_shots: TrainShots = None,
    train_batch: TrainBatch = None,
    root: Annotated[str | None, FreeOnResume] = None,
    download: Annotated[bool, FreeOnResume] = True,
    rotate: Annotated[tuple[Literal["train", "val", "test"], ...], KeepsTestTasks] = ("train",),
    augment: Annotated[Sequence[Literal["shift"]], KeepsTestTasks] = (),
) -> Source:
    """Handwritten characters of 50 alphabets, 28x28, ink 1 on 0, in the 1,100 / 100 / 423 split of MAML's code.

    Returns a source of N-way K-shot tasks, see `fmaml.data.episodes.Episode`: x float32 [tasks, n, 1, 28, 28], y int64
    [tasks, n]. In the splits of ``rotate``, each character rotated by 90, 180 and 270 degrees is three more
    classes. ``augment`` shifts images of training tasks at random by up to an eighth of their size. It does not mirror
    them: a mirrored character is another one.

    ``root`` is the folder with the files. Without it fmaml searches for them, and downloads them if ``download``.
    Images are on ``device``. Tasks depend only on ``seed``. Raises Error if the files are missing, damaged or not
    Omniglot, or if there are too few classes or drawings for the tasks.

    Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic program induction", Science
    2015.
    """
    parts = _locate(root, download)
    names = {split: class_names("omniglot", split) for split in OMNIGLOT_CLASSES}
    characters = [name for own in names.values() for name in own]
    key = fingerprint(_CACHE_VERSION, CHARACTER_SIZE, "lanczos", stamp_parts(parts), characters)
    images = cached(cache_folder() / f"omniglot-{key}.safetensors", lambda: read_drawings(parts, characters))
    splits = consecutive_splits(images.to(device), OMNIGLOT_CLASSES, rotate)
    about = {"data": "omniglot", "files": [str(part) for part in parts], "rotate": list(rotate)}
    about |= {"split": "the original MAML code's 1,100/100/423", "license": "MIT"}
    without_part = {split: [name.partition("/")[2] for name in own] for split, own in names.items()}
    episode = Episode(ways, shots, queries, train_ways, train_shots, augment, train_batch)
    return episodes(splits, seed, episode, about, names=without_part, form=CHARACTER_FORM)


def _locate(root: str | None, download: bool) -> list[Path]:
    """Find both parts of Omniglot, each a zip or a folder; download them if needed and allowed."""
    files = DataFiles(
        name="Omniglot",
        folders=("omniglot", "omniglot-py"),  # the second is torchvision's
        expected="images_background and images_evaluation, each a .zip or a folder of Alphabet/characterNN/*.png",
        downloads=tuple(Download(f"{_URL}{part}.zip", f"omniglot/{part}.zip", _MD5[part]) for part in OMNIGLOT_PARTS),
    )
    return find_or_download(find_omniglot, root, files, allow_download=download)
