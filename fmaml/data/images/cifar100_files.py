"""Read CIFAR-100 as published: ``cifar-100-python.tar.gz``, or the folder unpacked from it."""

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import Error
from ...files.regular import read_regular
from ..files.cache import file_stamp
from ..files.pickles import read_pickle
from .image_cache import ImageStore, cached_store

CIFAR100_URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
CIFAR100_ARCHIVE = "cifar-100-python.tar.gz"
CIFAR100_MD5 = {
    CIFAR100_ARCHIVE: "eb9058c3a382ffc7106e4002c42a8d85",
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
_FOLDER = "cifar-100-python"
_FILES = ("train", "test", "meta")
_MAX_BYTES = 200_000_000  # of a file; the archive has 169 million, train has 155 million
_IMAGE_SHAPE = (3, 32, 32)


def find_cifar100(folder: Path) -> Path | None:
    """The archive in ``folder``, or else the unpacked folder in it, or ``folder`` itself if it is the unpacked one."""
    candidates = (folder / CIFAR100_ARCHIVE, folder / _FOLDER, folder)
    return next((path for path in candidates if path.is_file() or is_unpacked_cifar100(path)), None)


def is_unpacked_cifar100(folder: Path) -> bool:
    """Whether the folder has the three files. In other layouts `train` and `test` are folders."""
    return all((folder / name).is_file() for name in _FILES)


def read_cifar100(path: Path, names: dict[str, list[str]]) -> ImageStore:
    """Read the images, class after class in the order of ``names``, and cache them.

    Each class has the 500 images of `train`, then the 100 of `test`. ``path`` is the archive or the unpacked folder.
    Raises Error if it is damaged.
    """
    files = [path] if path.is_file() else [path / name for name in _FILES]
    facts = [file_stamp(str(file)) for file in files]
    return cached_store("cifar-fs", (facts, names), lambda: _group_by_class(path, names))


def _group_by_class(path: Path, names: dict[str, list[str]]) -> ImageStore:
    content = read_cifar100_files(path)
    labels = np.concatenate([np.asarray(content[part]["fine_labels"]) for part in ("train", "test")])
    pixels = np.concatenate([content[part]["data"] for part in ("train", "test")]).reshape(len(labels), *_IMAGE_SHAPE)
    label_of = {name: i for i, name in enumerate(content["meta"]["fine_label_names"])}
    rows = [np.flatnonzero(labels == label_of[name]) for part in names.values() for name in part]
    return ImageStore(torch.from_numpy(pixels[np.concatenate(rows)]), torch.tensor([len(part) for part in rows]))


def read_cifar100_files(path: Path) -> dict[str, Any]:
    """Read the three files, by name, from the archive or the folder; Error if they are not CIFAR-100's.

    Each file's MD5 is compared with the published one before it is unpacked or unpickled.
    """
    try:
        if path.is_dir():
            found = {name: read_regular(path / name, _MAX_BYTES) for name in _FILES}
            for name, data in found.items():
                _check_md5(path / name, data)
        else:
            _check_md5(path, archive := read_regular(path, _MAX_BYTES))
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                members = {name: tar.extractfile(f"{_FOLDER}/{name}") for name in _FILES}
                found = {name: member.read() for name, member in members.items() if member}
    except OSError as error:
        raise Error(f"{path}: not CIFAR-100 ({error}); copy or download it again") from error
    return {name: read_pickle(path / name, io.BytesIO(data)) for name, data in found.items()}


def _check_md5(path: Path, content: bytes) -> None:
    found, published = hashlib.md5(content, usedforsecurity=False).hexdigest(), CIFAR100_MD5[path.name]
    if found != published:
        raise Error(
            f"{path}: its MD5 is {found}, but CIFAR-100's {path.name} has {published}; copy or download it again "
            f"from {CIFAR100_URL}"
        )
