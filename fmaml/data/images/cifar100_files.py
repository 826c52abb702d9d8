"""CIFAR-100 as published: ``cifar-100-python.tar.gz``, or the folder unpacked from it."""

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
from ...files.regular import check_regular, read_regular
from ..files.cache import file_stamp
from ..files.pickles import read_pickle
from .image_store import ImageStore, cached_store

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
_MAX_TAR_BYTES = 200_000_000  # unpacked; the published archive has 187 million
_MAX_TAR_MEMBERS = 100  # files, folders and headers; the published archive has 4
_TAR_BLOCK = 512  # bytes
_IMAGE_SHAPE = (3, 32, 32)


def find_cifar100(folder: Path) -> Path | None:
    """The archive in ``folder``, or else the unpacked folder there, or ``folder`` itself if that is unpacked."""
    candidates = (folder / CIFAR100_ARCHIVE, folder / _FOLDER, folder)
    return next((path for path in candidates if path.is_file() or is_unpacked_cifar100(path)), None)


def is_unpacked_cifar100(folder: Path) -> bool:
    """Whether the three files are in the folder. `train` and `test` are files here, but folders in other layouts."""
    return all((folder / name).is_file() for name in _FILES)


def read_cifar100(path: Path, names: dict[str, list[str]]) -> ImageStore:
    """The images by class in the order of ``names``: of each class the 500 of `train`, then the 100 of `test`; cached.

    ``path`` is the archive or the unpacked folder. UserError if it is damaged.
    """
    files = [path] if path.is_file() else [path / name for name in _FILES]
    facts = [file_stamp(str(file)) for file in files]
    return cached_store("cifar-fs", (facts, names), lambda: _group_by_class(path, names))


def _group_by_class(path: Path, names: dict[str, list[str]]) -> ImageStore:
    content = {name: read_pickle(path / name, io.BytesIO(data)) for name, data in read_cifar100_files(path).items()}
    try:
        labels = np.concatenate([np.asarray(content[part]["fine_labels"]) for part in ("train", "test")])
        pixels = np.concatenate([content[part]["data"] for part in ("train", "test")])
        pixels = pixels.reshape(len(labels), *_IMAGE_SHAPE)
        label_of = {name: i for i, name in enumerate(content["meta"]["fine_label_names"])}
        rows = [np.flatnonzero(labels == label_of[name]) for part in names.values() for name in part]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not CIFAR-100's images and labels ({error}); copy or download it again") from error
    return ImageStore(torch.from_numpy(pixels[np.concatenate(rows)]), torch.tensor([len(part) for part in rows]))


def read_cifar100_files(path: Path) -> dict[str, bytes]:
    """The content of the three files by name, from the archive or the folder. UserError unless the MD5s match."""
    try:
        if path.is_dir():
            found = {name: read_regular(path / name, _MAX_TAR_BYTES) for name in _FILES}
        else:
            check_regular(path, _MAX_TAR_BYTES)
            with gzip.open(path) as file:
                found = _read_tar_members(file, [f"{_FOLDER}/{name}" for name in _FILES])
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError) as error:
        raise UserError(f"{path}: not a whole archive ({error}); copy or download it again") from error
    for name, data in found.items():
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if md5 != CIFAR100_MD5[name]:
            raise UserError(
                f"{path}: {name} has md5 {md5}, CIFAR-100's is {CIFAR100_MD5[name]}; "
                f"copy or download it again from {CIFAR100_URL}"
            )
    return found


def _read_tar_members(file: gzip.GzipFile, names: list[str]) -> dict[str, bytes]:
    """The content of the named regular files of a tar archive, by last part of the name. Nothing is extracted.

    Read block by block, because `tarfile` would keep a header of any size in memory and follow cyclic links.
    ValueError if the archive is too large or lacks one of the files.
    """
    found: dict[str, bytes] = {}
    remaining = _MAX_TAR_BYTES
    for count in range(_MAX_TAR_MEMBERS + 1):
        if not any(block := file.read(_TAR_BLOCK)):
            break
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        remaining -= _TAR_BLOCK + info.size
        if info.size < 0 or remaining < 0 or count == _MAX_TAR_MEMBERS:
            raise ValueError(
                f"with {info.name[:60]} it has, or claims to have, more than {_MAX_TAR_BYTES} bytes or "
                f"{_MAX_TAR_MEMBERS} files"
            )
        padded = -(-info.size // _TAR_BLOCK) * _TAR_BLOCK
        if info.name in names and info.isreg():
            found[info.name.rpartition("/")[2]] = file.read(padded)[: info.size]
        else:
            file.seek(padded, os.SEEK_CUR)  # decompresses in small pieces that are not kept
    if absent := [name for name in names if name.rpartition("/")[2] not in found]:
        raise ValueError(f"no file {', '.join(absent)} in it")
    return found
