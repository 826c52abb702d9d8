"""Molecules that are active in an assay: a task is an assay, some molecules the support set, others the query set.

x holds the bits of a molecule's fingerprint, then its descriptors as ranks in [-1, 1]; y is 1 if it is active, else 0.
The metric is the average precision of the queries minus their share of active ones (FS-Mol, NeurIPS 2021).
"""

from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from torch import Tensor

import fmaml
from fmaml.data import Metric, Source, task_keys
from fmaml.losses import IGNORED
from fmaml.rng import fold, uniform
from fmaml.setting_types import FreeOnResume, KeepsTestTasks, Size, TrainShots, gives

LEAST = 16  # queries of an assay


class Assays(NamedTuple):
    """The molecules of a split, assay after assay, the active ones of each first."""

    bits: Tensor  # uint8 [molecules, bits / 8]
    descriptors: Tensor  # int8 [molecules, descriptors], ranks from -127 to 127
    counts: Tensor  # int64 [assays]
    active: Tensor  # int64 [assays]: the active molecules of each
    starts: Tensor  # int64 [assays]: the first molecule of each
    numbers: Tensor  # int64 [assays]: the digits of its name in ChEMBL


def precision_gain(logits: Tensor, y: Tensor) -> Tensor:
    """Average precision of the score logits[:, 1] - logits[:, 0], minus the share of active ones; a scalar.

    logits [n, 2], y int64 [n]; rows with label -1 are ignored. Molecules of equal score stay in their order.
    """
    real, active = y != IGNORED, (y == 1).float()
    score = torch.where(real, logits[:, 1] - logits[:, 0], -torch.inf)
    hits = active.gather(0, score.argsort(descending=True, stable=True))
    precision = hits.cumsum(0) / torch.arange(1, len(y) + 1, device=y.device)
    return (precision * hits).sum() / hits.sum().clamp(min=1) - active.sum() / real.sum()


PRECISION_GAIN = Metric("average precision over base rate", precision_gain, ".3f", more_is_better=True)


@gives("numbers", "classes", "single_targets")
def molecules(
    *,
    seed: int,
    device: torch.device,
    root: Annotated[str | None, FreeOnResume] = None,
    shots: Size = 16,
    queries: Size = 256,
    train_shots: TrainShots = None,
    train_queries: Annotated[Size, KeepsTestTasks] = 32,
) -> Source:
    """Assays of the folder ``root`` that `prepare` wrote; without a folder, made ones.

    Support x float32 [tasks, shots, features], y int64 [tasks, shots], stratified: with the assay's share of active
    ones. The query set has up to ``queries`` others. Validation and test task i is assay i, as long as it lasts.
    """
    splits = (
        {split: read_assays(Path(root).expanduser() / f"{split}.npz") for split in ("train", "val", "test")}
        if root
        else made_assays()
    )
    sizes = {"train": (train_shots or shots, train_queries), "val": (shots, queries), "test": (shots, queries)}
    splits = {split: large_enough(own, sizes[split][0] + LEAST, device) for split, own in splits.items()}
    sample = partial(sample_tasks, splits, sizes, seed)
    counts = {split: len(own.counts) for split, own in splits.items()}
    about = {
        "data": "FS-Mol" if root else "made assays",
        "task": f"{shots} molecules of an assay",
        "protocol": f"unseen assays ({counts['train']} train, {counts['val']} validation, {counts['test']} test)",
        "names": [f"CHEMBL{number}" for number in splits["test"].numbers.tolist()],
    }
    inputs = 8 * splits["test"].bits.shape[1] + splits["test"].descriptors.shape[1]
    source = Source(sample, (inputs,), 2, about, metric=PRECISION_GAIN, settings=(fmaml.transductive,))
    return source._replace(
        references=lambda *which: {"untrained prototypes": untrained(sample(*which))},
        data={split: own._asdict() for split, own in splits.items()},
    )


def read_assays(file: Path) -> Assays:
    if not file.exists():
        raise ValueError(
            f"data.root = {file.parent}: has no {file.name}; make it by python -m examples.molecules.prepare"
        )
    arrays = dict(np.load(file))
    numbers = torch.tensor([int(name.removeprefix("CHEMBL")) for name in arrays.pop("names")])
    return pack(**{name: torch.from_numpy(array) for name, array in arrays.items()}, numbers=numbers)


def pack(active: Tensor, bits: Tensor, descriptors: Tensor, counts: Tensor, numbers: Tensor) -> Assays:
    """Put the active molecules of each assay first; ``active`` is bool [molecules]."""
    assay = torch.arange(len(counts)).repeat_interleave(counts)
    order = (2 * assay + ~active).argsort(stable=True)
    hits = torch.zeros_like(counts).index_add(0, assay, active.long())
    return Assays(bits[order], descriptors[order], counts, hits, counts.cumsum(0) - counts, numbers)


def large_enough(assays: Assays, least: int, device: torch.device) -> Assays:
    """The assays with ``least`` molecules or more, and two or more of each kind."""
    fits = (assays.counts >= least) & (assays.active >= 2) & (assays.counts - assays.active >= 2)
    if not fits.any():
        raise ValueError(f"data.shots: no assay has {least} molecules; give fewer")
    kept = (part[fits].to(device) for part in assays[2:])
    return Assays(assays.bits.to(device), assays.descriptors.to(device), *kept)


def sample_tasks(
    splits: dict[str, Assays], sizes: dict[str, tuple[int, int]], seed: int, split: str, step: int, tasks: range
) -> fmaml.Task:
    """The stacked tasks of these numbers: random assays in training, else in order, again and again."""
    assays, (shots, queries) = splits[split], sizes[split]
    keys = task_keys(seed, split, step, tasks, assays.counts.device)  # [tasks]
    which = torch.arange(tasks.start, tasks.stop, device=keys.device) % len(assays.counts)
    if split == "train":
        which = (len(assays.counts) * uniform(fold(keys, -1))).long()
    counts, active, starts = (part[which, None] for part in assays[2:5])
    slots = torch.arange(int(counts.max()), device=keys.device)
    first, second = (uniform(fold(fold(keys, i)[:, None], slots)) for i in range(2))  # [tasks, slots]
    real, hit = slots < counts, slots < active
    wanted = (shots * active / counts).round().long().clamp(1, shots - 1).minimum(active - 1)
    wanted = wanted.maximum(shots - (counts - active - 1))
    place = torch.where(real, first + ~hit, 2.0).argsort(1).argsort(1)  # the active ones come first
    chosen = real & torch.where(hit, place < wanted, place - active < shots - wanted)
    rows = torch.where(chosen, second, torch.where(real, second + 1, 3.0)).argsort(1)[:, : shots + queries]
    y = torch.where(rows < counts, (rows < active).long(), IGNORED)
    x = features(assays, starts + rows.minimum(counts - 1))
    return fmaml.Task(fmaml.Batch(x[:, :shots], y[:, :shots]), fmaml.Batch(x[:, shots:], y[:, shots:]))


def features(assays: Assays, rows: Tensor) -> Tensor:
    """float32 [*rows, features]: the bits as 0 and 1, and the descriptors in [-1, 1]."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=rows.device)
    bits = (assays.bits[rows][..., None] >> shifts) & 1
    return torch.cat([bits.flatten(-2).float(), assays.descriptors[rows].float() / 127], -1)


def untrained(task: fmaml.Task) -> Tensor:
    """The metric of the nearest mean of the inputs, in each task [tasks]."""
    (known, labels), (asked, y) = task
    means = [((labels == k)[..., None] * known).sum(1) / (labels == k).sum(1)[:, None] for k in range(2)]
    far = torch.stack([(asked - mean[:, None]).square().sum(-1) for mean in means], -1)
    return torch.stack([precision_gain(-distance, truth) for distance, truth in zip(far, y, strict=True)])


def made_assays(assays: int = 300, each: int = 96, kinds: int = 8) -> dict[str, Assays]:
    """Molecules with hidden parts, each shown by bits and noise; an assay reacts to some parts, and not to others."""
    noise = torch.Generator().manual_seed(0)
    parts = torch.randn(assays, each, kinds, generator=noise)
    liked = torch.randn(assays, kinds, 1, generator=noise)
    active = (parts @ liked)[..., 0] > torch.rand(assays, 1, generator=noise)
    shown = torch.randn(kinds, 56, generator=noise)
    bits = torch.cat([parts @ shown, 9 * torch.randn(assays, each, 200, generator=noise)], -1) > 0
    packed = torch.from_numpy(np.packbits(bits.flatten(0, 1).numpy(), axis=1))
    descriptors = torch.zeros(assays * each, 1, dtype=torch.int8)
    found, first = {}, 0
    for split, last in (("train", 200), ("val", 240), ("test", 300)):
        own = slice(first * each, last * each)
        counts = torch.full((last - first,), each)
        found[split] = pack(active.flatten()[own], packed[own], descriptors[own], counts, torch.arange(first, last))
        first = last
    return found
