"""CIFAR-100 as its author gives it: ``cifar-100-python.tar.gz``, or the folder unpacked from it."""

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch

from ...errors import UserError
from ..files.pickles import read_pickle
from ..images import image_store
from .image_store import Album

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
ARCHIVE = "cifar-100-python.tar.gz"
UNPACKED = "cifar-100-python"
MD5 = {
    ARCHIVE: "eb9058c3a382ffc7106e4002c42a8d85",
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
LARGEST = 200_000_000  # bytes of the tar; the published one has 187 million
MOST = 100  # files, folders and notes on them; the published one has 4
BLOCK = 512  # bytes: what a tar is made of
SHAPE = (3, 32, 32)


def there(folder: Path) -> Path | None:
    """The archive in this folder, or the unpacked folder, which may be this one; an archive goes first."""
    places = (folder / ARCHIVE, folder / UNPACKED, folder)
    return next((place for place in places if place.is_file() or unpacked(place)), None)


def unpacked(folder: Path) -> bool:
    """Whether the three files lie in it: `train` and `test` are files here, and folders in other sets."""
    return all((folder / name).is_file() for name in ("train", "test", "meta"))


def read(place: Path, names: dict[str, list[str]]) -> Album:
    """The classes in the order of ``names``: of each first the 500 images of `train`, then the 100 of `test`."""
    files = [place] if place.is_file() else [place / name for name in ("train", "test", "meta")]
    facts = [image_store.state(str(file)) for file in files]
    return image_store.kept("cifar-fs", (facts, names), lambda: by_class(place, names))


def by_class(place: Path, names: dict[str, list[str]]) -> Album:
    content = {name: read_pickle(place / name, io.BytesIO(data)) for name, data in contents(place).items()}
    try:
        labels = np.concatenate([np.asarray(content[part]["fine_labels"]) for part in ("train", "test")])
        pixels = np.concatenate([content[part]["data"] for part in ("train", "test")]).reshape(len(labels), *SHAPE)
        number = {name: i for i, name in enumerate(content["meta"]["fine_label_names"])}
        rows = [np.flatnonzero(labels == number[name]) for part in names.values() for name in part]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{place}: not CIFAR-100's images and labels ({error}); copy or download it again") from error
    return Album(torch.from_numpy(pixels[np.concatenate(rows)]), torch.tensor([len(part) for part in rows]))


def contents(place: Path) -> dict[str, bytes]:
    """The three files, each with its published md5."""
    names = ("train", "test", "meta")
    try:
        if place.is_dir():
            found = {name: (place / name).read_bytes() for name in names}
        else:
            with gzip.open(place) as file:
                found = packed(file, [f"{UNPACKED}/{name}" for name in names])
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError) as error:
        raise UserError(f"{place}: not a whole archive ({error}); copy or download it again") from error
    for name, data in found.items():
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if md5 != MD5[name]:
            raise UserError(
                f"{place}: {name} has md5 {md5}, CIFAR-100's is {MD5[name]}; copy or download it again from {URL}"
            )
    return found


def packed(file: gzip.GzipFile, names: list[str]) -> dict[str, bytes]:
    """The named files of a tar, read and not unpacked: nothing is written, and no link is followed.

    Block by block, as `tarfile` would keep a header of any size in memory, and follow links in a circle.
    """
    found: dict[str, bytes] = {}
    room = LARGEST
    for count in range(MOST + 1):
        if not any(block := file.read(BLOCK)):
            break
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        room -= BLOCK + info.size
        if info.size < 0 or room < 0 or count == MOST:
            raise ValueError(f"{info.name[:60]} makes it larger than {LARGEST} bytes or {MOST} files, or says so")
        whole = -(-info.size // BLOCK) * BLOCK
        if info.name in names and info.isreg():
            found[info.name.rpartition("/")[2]] = file.read(whole)[: info.size]
        else:
            file.seek(whole, os.SEEK_CUR)  # of a compressed file: read a little at a time, and forgotten
    if missing := [name for name in names if name.rpartition("/")[2] not in found]:
        raise ValueError(f"no file {', '.join(missing)} in it")
    return found
