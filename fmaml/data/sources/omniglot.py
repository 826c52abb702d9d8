"""Omniglot (Lake, Salakhutdinov and Tenenbaum, Science 2015): 1,623 characters, each drawn by 20 people."""

from pathlib import Path
from typing import Literal

import torch

from ...ranges import Count, Ways
from ..episodes import consecutive_splits, episodes
from ..files.cache import cached, fingerprint
from ..files.download import download as fetch
from ..files.find import CURE, cache_folder, find, missing
from ..images import omniglot_files
from ..published import CHARACTER_SIZE, OMNIGLOT_CLASSES, class_names
from ..source import Source

URL = "https://github.com/brendenlake/omniglot/raw/master/python/"
MD5 = {
    "images_background": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}
FOLDERS = ("omniglot", "omniglot-py")  # the second is torchvision's
EXPECTED = "images_background and images_evaluation, each a .zip or a folder of Alphabet/characterNN/*.png"
VERSION = 1  # of what is cached: raise it when the same files would give other tensors
SPLIT = "the original MAML code's 1,100/100/423"


def omniglot(
    *,
    seed: int,
    device: torch.device,
    ways: Ways | tuple[Ways, Ways] = 5,
    shots: Count | tuple[Count, Count] = 1,
    queries: Count | tuple[Count, Count] = 5,
    train_ways: Ways | None = None,
    root: str | None = None,
    download: bool = True,
    rotate: tuple[Literal["train", "val", "test"], ...] = ("train",),
) -> Source:
    """Handwritten characters of 50 alphabets, split 1,100 / 100 / 423 as in the original MAML code, 28x28,
    ink 1.

    ``root`` is the folder with the files; without it they are looked for, and downloaded if ``download``.
    ``train_ways`` classes are in each training task, by default ``ways``.
    The characters of the splits named by ``rotate`` also count turned by 90, 180 and 270 degrees.
    """
    parts = locate(root, download)
    names = {split: characters(split) for split in OMNIGLOT_CLASSES}
    everyone = [name for split in names.values() for name in split]
    key = fingerprint(VERSION, CHARACTER_SIZE, "lanczos", omniglot_files.state(parts), everyone)
    images = cached(cache_folder() / f"omniglot-{key}.safetensors", lambda: omniglot_files.read(parts, everyone))
    splits = consecutive_splits(images.to(device), OMNIGLOT_CLASSES, rotate)
    about = {"data": "omniglot", "files": [str(part) for part in parts], "rotate": list(rotate), "split": SPLIT}
    return episodes(splits, seed=seed, ways=ways, shots=shots, queries=queries, about=about, train_ways=train_ways)


def characters(split: str) -> list[str]:
    """The names of a split, such as ``images_background/Greek/character01``, from the file that fixes it."""
    return class_names("omniglot", split)


def locate(root: str | None, download: bool) -> list[Path]:
    """Both parts, downloaded if need be and allowed. A root that was asked for is never passed over."""
    found = find(omniglot_files.locate, root, FOLDERS)
    if found is None and root is None and download:
        for part in omniglot_files.PARTS:
            path = cache_folder() / "omniglot" / f"{part}.zip"
            fetch(URL + path.name, path, MD5[part], cure=CURE)
        found = find(omniglot_files.locate, root, FOLDERS)
    if found is None:
        raise missing("Omniglot", EXPECTED, root, FOLDERS)
    return found
