"""Your own features, such as those of a pretrained network: arrays of NumPy."""

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from ...errors import Error, note
from ...files.plain_text import counted
from ...files.regular import read_regular
from ...setting_types import CostsMemory, Count, FreeOnResume, Natural, SizeOrRange, TrainBatch, Unit, Ways, WaysOrRange
from ..class_examples import Split
from ..class_splits import random_split
from ..episodes import Episode, episodes
from ..source import Source, show_nothing
from ..tables.csv_table import Array

MAX_ARRAY_BYTES = 8_000_000_000


def feature_arrays(
    *,
    seed: int,
    device: torch.device,
    file: Annotated[str, FreeOnResume],
    labels: Annotated[str | None, FreeOnResume] = None,
    ways: WaysOrRange = 5,
    shots: SizeOrRange = 1,
    queries: SizeOrRange = 5,
    train_ways: Annotated[Ways | None, CostsMemory] = None,
    train_shots: Annotated[Count | None, CostsMemory] = None,
    train_batch: TrainBatch = None,
    fractions: tuple[Unit, Unit, Unit] = (0.64, 0.16, 0.2),
    split_seed: Natural = 0,
) -> Source:
    """Your own features: ``file`` is an array X.npy [n, width], and ``labels`` an array y.npy [n] of numbers or names.

    Without ``labels``, ``file`` is a folder with an array NAME.npy [n, width] for each class.

    Returns a source of N-way K-shot tasks, see `fmaml.data.episodes.Episode`: x float32 [tasks, n, width], y int64
    [tasks, n]. Values stay as they are. Classes are split by ``fractions`` (train, val, test) and ``split_seed``.
    Arrays are on ``device``. Tasks depend only on ``seed``. Raises Error for arrays that cannot be used.
    """
    path = Path(file).expanduser()
    by_class = read_class_arrays(path) if labels is None else read_labelled_array(path, Path(labels).expanduser())
    sizes = sorted((len(x), name) for name, x in by_class.items())
    width = next(iter(by_class.values())).shape[1]
    (fewest, smallest), (most, largest) = sizes[0], sizes[-1]
    total = counted(sum(map(len, by_class.values())), "example")
    each = f"{fewest}" if fewest == most else f"{fewest} ({smallest}) to {most} ({largest})"
    note(f"{path}: {len(sizes)} classes, {total} of {width} features: {each} of each class")
    names = random_split(sorted(by_class), fractions, split_seed)
    splits = {split: as_split([by_class[name] for name in own], device) for split, own in names.items()}
    about = {"data": "features", "license": "that of your data", "files": [str(path)]}
    episode = Episode(ways, shots, queries, train_ways, train_shots, train_batch=train_batch)
    return episodes(splits, seed, episode, about, names=names)._replace(show=show_nothing)


def read_class_arrays(folder: Path) -> dict[str, Array]:
    """Class name -> its features, from the arrays NAME.npy of a folder; Error if there are none or widths differ."""
    files = sorted(folder.glob("*.npy")) if folder.is_dir() else []
    if not files:
        raise Error(
            f"data.file = {folder}: no folder of arrays; give data.labels=y.npy for an array, or a folder with an "
            f"array NAME.npy for each class"
        )
    found = {path.stem: read_features(path) for path in files}
    first, width = files[0].name, found[files[0].stem].shape[1]
    for name, x in found.items():
        if x.shape[1] != width:
            raise Error(f"{folder}: {name}.npy has {x.shape[1]} features, and {first} has {width}; give all the same")
    return found


def read_labelled_array(file: Path, labels: Path) -> dict[str, Array]:
    """Class name -> its features, from an array of all and one of their labels; Error if they do not fit."""
    x, y = read_features(file), read_array(labels, "data.labels")
    if y.shape != (len(x),) or y.dtype.kind not in "iuUSb":
        raise Error(
            f"data.labels = {labels}: {y.dtype} {list(y.shape)}; {file.name} has {len(x)} rows, so give a whole number "
            f"or a name for each: [{len(x)}]"
        )
    names = np.char.decode(y, "utf-8") if y.dtype.kind == "S" else y
    return {str(name): x[names == name] for name in np.unique(names)}


def read_features(path: Path) -> Array:
    """An array of features as float32 [n, width]; Error unless it has that shape and finite numbers."""
    x = read_array(path, "data.file")
    if x.ndim != 2 or not x.size or x.dtype.kind not in "fiu":
        raise Error(f"data.file = {path}: {x.dtype} {list(x.shape)}; give numbers [examples, features]")
    x = x.astype(np.float32)
    finite = np.isfinite(x).all(1)
    if not finite.all():
        raise Error(f"data.file = {path}: row {int(finite.argmin())} has a value that is not finite; leave it out")
    return x


def read_array(path: Path, setting: str) -> Array:
    """The array of a file .npy; Error if it cannot be read. It runs no code: arrays of objects are refused."""
    try:
        return np.lib.format.read_array(io.BytesIO(read_regular(path, MAX_ARRAY_BYTES)))
    except OSError as error:
        raise Error(f"{setting} = {path}: {error.strerror}; name an array that numpy.save wrote") from None
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise Error(f"{setting} = {path}: {reason}; name an array that numpy.save wrote") from None


def as_split(classes: list[Array], device: torch.device) -> Split:
    """The examples of some classes."""
    counts = torch.tensor([len(x) for x in classes], device=device)
    x = torch.from_numpy(np.concatenate(classes)).to(device)
    return Split(x, counts.cumsum(0) - counts, counts, max(map(len, classes)))
