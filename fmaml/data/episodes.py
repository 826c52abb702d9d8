"""N-way K-shot tasks drawn from a tensor of examples with a few gathers, on the device that holds the examples."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..losses import IGNORED, Apply, accuracy, cross_entropy
from ..ranges import Change
from ..rng import fold
from ..types import Batch, Params, Task
from .augment import augmented
from .preprocessing import Form, Scaling
from .ragged import SizeRange, bounds, describe_size, mask_absent_classes, randomize_sizes, without_padding
from .source import ACCURACY, About, Source, task_keys

Splits = dict[str, "Split"]  # "train", "val" and "test"
Names = dict[str, list[str]]  # split -> the names of its classes


class Episode(NamedTuple):
    """What a task is drawn from a split: the settings that sources of N-way K-shot tasks have in common.

    A task's support x is float32 [ways * shots, *shape] and y int64 [ways * shots], the query set the same with
    ``queries`` in place of ``shots``: ``queries``, too, is per class. A range (least, most) as ``ways``, ``shots`` or
    ``queries`` makes tasks of different sizes, see `fmaml.data.ragged`. ``train_ways`` and ``train_shots`` are those of
    training tasks, where they differ; ``augment`` mirrors ("flip") and shifts ("shift") their images at random.
    """

    ways: SizeRange
    shots: SizeRange
    queries: SizeRange
    train_ways: int | None = None
    train_shots: int | None = None
    augment: Sequence[Change] = ()

    @property
    def for_training(self) -> dict[str, int]:
        """The sizes that training tasks have of their own."""
        given = {"ways": self.train_ways, "shots": self.train_shots}
        return {name: size for name, size in given.items() if size is not None}

    def sizes(self, split: str) -> dict[str, SizeRange]:
        """The ways, shots and queries of a task of the split."""
        sizes = {"ways": self.ways, "shots": self.shots, "queries": self.queries}
        return sizes | self.for_training if split == "train" else sizes

    def most(self, split: str) -> dict[str, int]:
        """The largest ways, shots and queries of a task of the split."""
        return {name: bounds(size)[1] for name, size in self.sizes(split).items()}

    @property
    def padded(self) -> bool:
        """Whether tasks may be of different sizes."""
        return any(not isinstance(size, int) for size in self[:3])


class Split(NamedTuple):
    """The examples of one split, images or signals, class after class; classes may differ in size."""

    images: Tensor  # uint8 [images, channels, height, width], or float32 [signals, channels, length]
    starts: Tensor  # int64 [classes]: index in `images` of each class's first image
    counts: Tensor  # int64 [classes]: number of images of each class
    max_count: int  # max(counts), stored because reading it from a GPU would wait for the GPU

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with its images as an array: of a tensor that is part of a larger one, all of that is pickled."""
        return _split_of, (self.images.cpu().numpy(), *self[1:])


def _split_of(images: np.ndarray, starts: Tensor, counts: Tensor, max_count: int) -> Split:
    """The split, with its images on the device of the other tensors."""
    return Split(torch.from_numpy(images).to(starts.device), starts, counts, max_count)


def equal_classes(images: Tensor) -> Split:
    """A split of classes of equal size from uint8 [classes, each, channels, height, width]."""
    classes, each = images.shape[:2]
    starts = torch.arange(classes, device=images.device) * each
    return Split(images.flatten(0, 1), starts, torch.full_like(starts, each), each)


def with_rotations(split: Split) -> Split:
    """A split of four times the classes: each also rotated by 90, 180 and 270 degrees. Images must be square."""
    turns = range(4)
    images = torch.cat([split.images.rot90(turn, (2, 3)) for turn in turns])
    starts = torch.cat([split.starts + turn * len(split.images) for turn in turns])
    return Split(images, starts, split.counts.repeat(4), split.max_count)


def consecutive_splits(images: Tensor, classes: dict[str, int], rotate: tuple[str, ...]) -> dict[str, Split]:
    """Splits of uint8 [classes, each, C, H, W] with ``classes`` consecutive classes each; rotated if in ``rotate``."""
    parts = {name: equal_classes(part) for name, part in zip(classes, images.split([*classes.values()]), strict=True)}
    return {name: with_rotations(part) if name in rotate else part for name, part in parts.items()}


def sample_episodes(split: Split, keys: Tensor, *, ways: int, shots: int, queries: int) -> Task:
    """Stacked N-way K-shot tasks, one per key of ``keys``, int64 [tasks].

    Returns support x float32 [tasks, ways * shots, C, H, W] in [0, 1] and y int64 [tasks, ways * shots]; the query set
    the same with ``queries`` in place of ``shots``. Rows are sorted by class, and label i is the i-th class drawn. The
    split must have ``ways`` classes and each class ``shots + queries`` images; `episodes` checks that.

    Every class of the split, and every image of a chosen class, gets a random 64-bit score, and the highest win. Ties
    (probability 2^-64 for each pair) are the only thing that two devices may resolve differently.
    """
    classes = len(split.starts)
    slots = torch.arange(classes + ways * split.max_count, device=keys.device)
    scores = fold(keys[:, None], slots)  # [tasks, slots]: of the classes, then of the images of each way in turn
    chosen = _highest(scores[:, :classes], ways)

    absent = slots[: split.max_count] >= split.counts[chosen][..., None]  # [tasks, ways, max_count]
    image_scores = scores[:, classes:].unflatten(1, (ways, split.max_count)).masked_fill(absent, -(2**63))
    drawn = image_scores.topk(shots + queries).indices  # [tasks, ways, shots + queries], all different
    rows = drawn + split.starts[chosen][..., None]
    return Task(_gather(split, rows[..., :shots]), _gather(split, rows[..., shots:]))


def draw_classes(split: Split, keys: Tensor, ways: int) -> Tensor:
    """The numbers of the classes that `sample_episodes` draws, in the order of their labels: int64 [tasks, ways]."""
    return _highest(fold(keys[:, None], torch.arange(len(split.starts), device=keys.device)), ways)


def _highest(scores: Tensor, ways: int) -> Tensor:
    """The classes of the highest scores [tasks, classes]: [tasks, ways]."""
    return scores.topk(ways).indices


def _gather(split: Split, rows: Tensor) -> Batch:
    """The examples [tasks, ways * each] at row numbers [tasks, ways, each]."""
    tasks, ways, each = rows.shape
    x = as_floats(split.images[rows.flatten(1)])
    y = torch.arange(ways, device=rows.device).repeat_interleave(each, output_size=ways * each)
    return Batch(x, y.repeat(tasks, 1))


def as_floats(stored: Tensor) -> Tensor:
    """The examples as a network gets them: images uint8 become float32 in [0, 1], all else is that already.

    Multiplied, not divided: CUDA divides by a constant through its reciprocal, which differs from the CPU's result in
    the last bit.
    """
    return stored if stored.is_floating_point() else stored.float().mul_(1 / 255)


def episodes(
    splits: Splits,
    seed: int,
    episode: Episode,
    about: About,
    *,
    names: Names | None = None,
    form: Form | None = None,
    scaling: Scaling | None = None,
) -> Source:
    """A source of N-way K-shot tasks from the splits "train", "val" and "test", with the shapes of `sample_episodes`.

    ``about`` becomes part of ``Source.about``; its key "split" is the split's name in reports, and "shared_classes" the
    classes that are in more than one split. ``names`` holds the class names of each split, for messages and reports; in
    a split of more classes they are repeated with each rotation. ``form`` is that of images, ``scaling`` that of
    signals. Raises UserError, naming split and class, if a split has too few classes or a class too few examples.
    """
    for split in splits:
        _check_split(split, splits[split], episode, (names or {}).get(split, []))
    return _Sampler(splits, seed, episode, _describe(splits, episode, about), names, form, scaling).source()


class _Sampler(NamedTuple):
    """Draws tasks from splits."""

    splits: Splits
    seed: int
    episode: Episode
    about: About
    names: Names | None
    form: Form | None
    scaling: Scaling | None

    def source(self) -> Source:
        least, most = bounds(self.episode.ways)
        source = Source(
            self.sample,
            inputs=tuple(next(iter(self.splits.values())).images.shape[1:]),
            outputs=max(most, self.episode.train_ways or 0),
            about=self.about,
            show=_save_example_task if self.scaling is None else _save_signals,
            chance=sum(1 / n for n in range(least, most + 1)) / (most + 1 - least),
            data=dict(self.splits),
            form=self.form,
            scaling=self.scaling,
            of_features=None if self.episode.augment else self.of_features,
            classes_of=self.classes_of if self.names else None,
        )
        if not self.episode.padded:
            return source
        metric = ACCURACY._replace(fn=mask_absent_classes(accuracy))
        return source._replace(criterion=mask_absent_classes(cross_entropy), metric=metric)

    def keys(self, split: str, step: int, tasks: range) -> Tensor:
        return task_keys(self.seed, split, step, tasks, self.splits[split].starts.device)

    def sample(self, split: str, step: int, tasks: range) -> Task:
        keys = self.keys(split, step, tasks)
        drawn = sample_episodes(self.splits[split], keys, **self.episode.most(split))
        sized = randomize_sizes(drawn, keys, **self.episode.sizes(split)) if self.episode.padded else drawn
        return augmented(sized, keys, self.episode.augment) if self.episode.augment and split == "train" else sized

    def classes_of(self, split: str, step: int, tasks: range) -> list[list[str]]:
        drawn = draw_classes(self.splits[split], self.keys(split, step, tasks), self.episode.most(split)["ways"])
        return [[class_name((self.names or {})[split], i) for i in row] for row in drawn.tolist()]

    def of_features(self, fn: Callable[[Tensor], Tensor]) -> Source:
        """The source whose x are features of images, which `Source.seen` still has."""
        features = {name: split._replace(images=fn(split.images)) for name, split in self.splits.items()}
        sample = self._replace(splits=features).sample
        return self.source()._replace(sample=sample, of_features=None, seen=self.sample)


def class_name(names: list[str], number: int) -> str:
    """The name of a class; beyond the names it is one of them, turned as in `with_rotations`."""
    turns, index = divmod(number, len(names))
    return f"{names[index]}, turned by {90 * turns} degrees" if turns else names[index]


def _describe(splits: Splits, episode: Episode, about: About) -> About:
    """``Source.about``: what was given, the task, the protocol and the number of classes."""
    classes = {name: len(split.starts) for name, split in splits.items()}
    sizes = episode.sizes("test")
    ways, shots, queries = map(describe_size, sizes.values())
    task = f"{ways}-way {shots}-shot"
    split_name = f" ({about['split']})" if "split" in about else ""
    kind = "classes, some seen in training" if about.get("shared_classes") else "unseen classes"
    protocol = f"{task}, {queries} queries a class, from {classes['test']} {kind}{split_name}"
    given = about | {f"train_{name}": size for name, size in episode.for_training.items()}
    augment = {"augment": [*episode.augment]} if episode.augment else {}
    return {**given, "task": task, "protocol": protocol, **sizes, "classes": classes, **augment}


def _check_split(name: str, split: Split, episode: Episode, names: list[str]) -> None:
    """Raise UserError unless the split has as many classes, and each of them as many images, as a task takes."""
    most, classes, least = episode.most(name), len(split.counts), int(split.counts.min())
    keys = {size: f"train_{size}" if name == "train" and size in episode.for_training else size for size in most}
    if most["ways"] > classes:
        raise UserError(
            f"data.{keys['ways']} = {most['ways']}: split {name} has {classes} classes, and those of a task are all "
            f"different; give at most {classes}"
        )
    each = most["shots"] + most["queries"]
    if each > least:
        smallest = int(split.counts.argmin())
        named = class_name(names, smallest) if names else smallest
        raise UserError(
            f"data.{keys['shots']} + data.queries = {each}: class {named} of split {name} has {least} examples, and "
            f"those of a task are all different; give {keys['shots']} + queries of at most {least}"
        )


def _save_example_task(folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
    """Write task.png: the first task, with the predictions after the last inner step."""
    from .pictures import image_task_figure, save_figure  # imported here because matplotlib takes half a second

    (support, query), phi = tasks[0], phis[0][-1]
    ways = int(query.y.max()) + 1
    predicted = apply(phi, query.x)[query.y != IGNORED, :ways].argmax(-1)
    figure = image_task_figure(Task(without_padding(support), without_padding(query)), predicted)
    save_figure(figure, folder / "task.png")


def _save_signals(folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
    """Write task.png: the signals of the first task, with the predictions after the last inner step."""
    from .pictures import save_figure, signal_task_figure  # imported here because matplotlib takes half a second

    (support, query), phi = tasks[0], phis[0][-1]
    support, query, ways = without_padding(support), without_padding(query), int(query.y.max()) + 1
    save_figure(signal_task_figure(Task(support, query), apply(phi, query.x)[:, :ways].argmax(-1)), folder / "task.png")
