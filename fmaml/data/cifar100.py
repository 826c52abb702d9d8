"""CIFAR-100 as its author gives it: ``cifar-100-python.tar.gz``, or the folder unpacked from it."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import torch

from ..errors import UserError
from . import album
from .album import Album
from .pickles import read_pickle

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
ARCHIVE = "cifar-100-python.tar.gz"
UNPACKED = "cifar-100-python"
MD5 = {
    ARCHIVE: "eb9058c3a382ffc7106e4002c42a8d85",
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
LARGEST = 200_000_000  # bytes of one file; the largest has 155 million
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
    facts = [album.state(str(file)) for file in files]
    return album.kept("cifar-fs", (facts, names), lambda: by_class(place, names))


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
            with tarfile.open(place) as archive:
                found = {name: member(archive, f"{UNPACKED}/{name}") for name in names}
    except (OSError, EOFError, KeyError, tarfile.TarError, ValueError) as error:
        raise UserError(f"{place}: not a whole archive ({error}); copy or download it again") from error
    for name, data in found.items():
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if md5 != MD5[name]:
            raise UserError(
                f"{place}: {name} has md5 {md5}, CIFAR-100's is {MD5[name]}; copy or download it again from {URL}"
            )
    return found


def member(archive: tarfile.TarFile, name: str) -> bytes:
    """One file of the archive, read and not unpacked: nothing is written."""
    file = archive.extractfile(name)
    if file is None or archive.getmember(name).size > LARGEST:
        raise ValueError(f"{name} is not a file of at most {LARGEST} bytes")
    return file.read()
