"""CIFAR-FS (Bertinetto, Henriques, Torr and Vedaldi, ICLR 2019): the 100 classes of CIFAR-100 (Krizhevsky 2009), each
of 600 images, 32x32, split into 64, 16 and 20 classes.
"""

from pathlib import Path

import torch

from ...ranges import Count, Ways
from ..episodes import episodes
from ..files.download import download as fetch
from ..files.find import CURE, cache_folder, find, missing
from ..images import cifar100_files, image_store, listing
from ..images.decode import Form
from ..images.image_store import Album
from ..published import HUNDRED_CLASSES, class_names, describe_sample
from ..source import Source

FOLDERS = ("cifar-fs", "cifar_fs", "cifar-100", "cifar100")
EXPECTED = (
    "data/ with a folder of images a class, or the folders train/, val/ and test/ with a folder a class, or "
    "cifar-100-python.tar.gz or the folder unpacked from it"
)
FORM = Form(32, 3, crop=False)


def cifar_fs(
    *,
    seed: int,
    device: torch.device,
    ways: Ways | tuple[Ways, Ways] = 5,
    shots: Count | tuple[Count, Count] = 1,
    queries: Count | tuple[Count, Count] = 15,
    root: str | None = None,
    download: bool = True,
) -> Source:
    """Small photographs of 100 classes, split 64 / 16 / 20 as by Bertinetto et al., 32x32, three channels from 0 to 1.

    ``root`` is the folder with the files; without it they are looked for, and CIFAR-100 downloaded if ``download``.
    A range, such as ``ways: [3, 8]``, makes tasks of different sizes.
    """
    names = {split: class_names("cifar_fs", split) for split in HUNDRED_CLASSES}
    place = locate(root, download)
    whole = place.is_file() or cifar100_files.unpacked(place)
    images = cifar100_files.read(place, names) if whole else from_folders(place, names)
    whose = f"Bertinetto et al.'s 64/16/20{describe_sample(images.count.tolist())}"
    about = {"data": "cifar_fs", "files": [str(place)], "split": whose}
    return episodes(
        image_store.cut(images, names, device),
        seed=seed,
        ways=ways,
        shots=shots,
        queries=queries,
        about=about,
        names=names,
    )


def locate(root: str | None, download: bool) -> Path:
    """The folder of images, or CIFAR-100's archive or folder; downloaded if need be and allowed."""
    found = find(there, root, FOLDERS)
    if found is None and root is None and download:
        path = cache_folder() / "cifar-100" / cifar100_files.ARCHIVE
        fetch(cifar100_files.URL, path, cifar100_files.MD5[cifar100_files.ARCHIVE], cure=CURE)
        found = path
    if found is None:
        raise missing("CIFAR-FS", EXPECTED, root, FOLDERS)
    return found


def there(folder: Path) -> Path | None:
    """What of CIFAR-FS the folder has: itself for images by class, else CIFAR-100."""
    return folder if (folder / "data").is_dir() or listing.split_paths(folder) else cifar100_files.there(folder)


def from_folders(place: Path, names: dict[str, list[str]]) -> Album:
    """``data/<class>/*``, or else a folder a split."""
    parts = None if (place / "data").is_dir() else listing.split_paths(place)
    if parts is None:
        found = listing.from_lists(names, place / "data")
    else:
        found = listing.in_order(listing.from_split_folders(parts), names, "CIFAR-FS", place)
    return image_store.from_files("cifar-fs", found, FORM, strict=True)
