"""Your own signals: a table of signals, one a row, with their classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from ...errors import Error, note
from ...files.plain_text import counted
from ...setting_types import (
    FreeOnResume,
    Natural,
    Size,
    SizeOrRange,
    TrainBatch,
    TrainShots,
    TrainWays,
    Unit,
    WaysOrRange,
)
from ..class_examples import Split
from ..class_splits import random_split
from ..episodes import Episode, episodes
from ..preprocessing import Scaling
from ..source import Source
from ..tables.csv_table import Array, numbers, numeric_columns, read_csv, words


def signals(
    *,
    seed: int,
    device: torch.device,
    file: Annotated[str, FreeOnResume],
    label: str = "label",
    features: Sequence[str] = (),
    channels: Size = 1,
    ways: WaysOrRange = 5,
    shots: SizeOrRange = 1,
    queries: SizeOrRange = 5,
    train_ways: TrainWays = None,
    train_shots: TrainShots = None,
    train_batch: TrainBatch = None,
    fractions: tuple[Unit, Unit, Unit] = (0.64, 0.16, 0.2),
    split_seed: Natural = 0,
) -> Source:
    """Your own signals, a CSV file: each row is a signal, with its class in the column ``label``.

    Returns a source of N-way K-shot tasks, see `fmaml.data.episodes.Episode`: x float32 [tasks, n, channels, length], y
    int64 [tasks, n]. ``features`` are the columns of samples in order of time: all of the first channel, then all of
    the second. By default they are the other columns of numbers, except row numbers. Each channel is scaled to mean 0
    and standard deviation 1 over the training classes. A trained model takes signals in their original units.

    Classes are split by ``fractions`` (train, val, test) and ``split_seed``. Signals are on ``device``. Tasks depend
    only on ``seed``. Raises Error, with line and column, for a table that cannot be used.
    """
    content = read_csv(Path(file).expanduser(), "data.file")
    labels = words(content, "data.label", label)
    samples = list(features) or numeric_columns(content, {label})
    note(f"{content.file}: label {label}, {counted(len(samples), 'sample')} a row, {samples[0]} to {samples[-1]}")
    if len(samples) % channels:
        raise Error(
            f"data.channels = {channels}: {content.file} has {len(samples)} samples a row, which this does not "
            f"divide; give a divisor of {len(samples)}, or name the label's column by data.label"
        )
    x = numbers(content, "data.file", samples).reshape(len(labels), channels, -1)  # [signals, channels, length]
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(labels):
        rows_of.setdefault(name, []).append(row)
    names = random_split(sorted(rows_of), fractions, split_seed)
    scaling = _scaling(x[[row for name in names["train"] for row in rows_of[name]]])
    scaled = scaling.inputs(torch.from_numpy(x)).float()
    splits = {split: _split(scaled, [rows_of[name] for name in own], device) for split, own in names.items()}
    about = {"data": "signals", "license": "that of your signals", "files": [content.file]}
    episode = Episode(ways, shots, queries, train_ways, train_shots, train_batch=train_batch)
    return episodes(splits, seed, episode, about, names=names, scaling=scaling)


def _scaling(x: Array) -> Scaling:
    """Mean and standard deviation of each channel of x [signals, channels, length]."""
    mean, deviation = x.mean((0, 2)), x.std((0, 2))
    if not deviation.all():
        flat = int(np.argmin(deviation)) + 1
        raise Error(f"data.channels: channel {flat} is constant over the training classes; leave it out")
    return Scaling(mean[:, None].tolist(), deviation[:, None].tolist())


def _split(x: torch.Tensor, classes: list[list[int]], device: torch.device) -> Split:
    """The signals of some classes."""
    counts = torch.tensor([len(rows) for rows in classes], device=device)
    rows = [row for own in classes for row in own]
    return Split(x[rows].to(device), counts.cumsum(0) - counts, counts, max(map(len, classes)))
