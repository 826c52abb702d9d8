"""N-way K-shot tasks drawn from a tensor of examples with a few gathers, on the device that holds the examples."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..losses import IGNORED, Apply, accuracy, cross_entropy
from ..pickling import picklable
from ..rng import fold
from ..setting_types import Change
from ..types import Batch, Params, Task
from .augment import augmented
from .images.decode import Form
from .ragged import SizeRange, bounds, describe_size, mask_absent_classes, randomize_sizes, without_padding
from .rng import task_keys
from .scaling import Scaling
from .source import ACCURACY, About, Source


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


@picklable
def episodes(
    splits: dict[str, Split],
    *,
    seed: int,
    ways: SizeRange,
    shots: SizeRange,
    queries: SizeRange,
    about: About,
    names: dict[str, list[str]] | None = None,
    train_ways: int | None = None,
    train_shots: int | None = None,
    augment: Sequence[Change] = (),
    form: Form | None = None,
    scaling: Scaling | None = None,
) -> Source:
    """A source of N-way K-shot tasks from the splits "train", "val" and "test", with the shapes of `sample_episodes`.

    ``queries`` is per class. A range (least, most) as ``ways``, ``shots`` or ``queries`` makes tasks of different
    sizes, see `fmaml.data.ragged`. ``about`` becomes part of ``Source.about``; its key "split" is the split's name in
    reports, and "shared_classes" the classes that are in more than one split. ``names`` holds the class names of each
    split, for messages and reports; in a split of more classes they are repeated with each rotation. ``train_ways``
    and ``train_shots`` are those of training tasks, where they differ; ``augment`` changes their images at random;
    ``form`` is that of images, ``scaling`` that of signals. Raises UserError, naming split and class, if a split has
    too few classes or a class too few examples.
    """
    sizes = {"ways": ways, "shots": shots, "queries": queries}
    for_training = {name: n for name, n in {"ways": train_ways, "shots": train_shots}.items() if n is not None}
    sizes_of = {split: sizes | (for_training if split == "train" else {}) for split in splits}
    most_of = {split: {name: bounds(size)[1] for name, size in own.items()} for split, own in sizes_of.items()}
    for split in splits:
        keys = {name: f"train_{name}" if split == "train" and name in for_training else name for name in sizes}
        _check_split(split, splits[split], most_of[split], keys, (names or {}).get(split))
    padded = any(isinstance(size, list | tuple) for size in sizes.values())

    def draw(splits: dict[str, Split], split: str, step: int, tasks: range) -> Task:
        images = splits[split]
        keys = task_keys(seed, split, step, tasks, images.starts.device)
        full = sample_episodes(images, keys, **most_of[split])
        sized = randomize_sizes(full, keys, **sizes_of[split]) if padded else full
        return augmented(sized, keys, augment) if augment and split == "train" else sized

    def classes_of(split: str, step: int, tasks: range) -> list[list[str]]:
        keys = task_keys(seed, split, step, tasks, splits[split].starts.device)
        own, drawn = names[split] if names else [], draw_classes(splits[split], keys, most_of[split]["ways"])
        return [[class_name(own, i) for i in row] for row in drawn.tolist()]

    def of_features(fn: Callable[[Tensor], Tensor]) -> Source:
        features = {name: split._replace(images=fn(split.images)) for name, split in splits.items()}
        return source._replace(sample=partial(draw, features), of_features=None, seen=source.sample)

    least, most = bounds(ways)
    candidates = range(least, most + 1)
    source = Source(
        partial(draw, splits),
        inputs=tuple(next(iter(splits.values())).images.shape[1:]),
        outputs=max(most, train_ways or 0),
        about=_describe(splits, sizes, about, for_training) | ({"augment": [*augment]} if augment else {}),
        show=_save_example_task if scaling is None else _save_signals,
        chance=sum(1 / n for n in candidates) / len(candidates),
        data=dict(splits),
        form=form,
        scaling=scaling,
        of_features=None if augment else of_features,
        classes_of=classes_of if names else None,
    )
    if padded:
        metric = ACCURACY._replace(fn=mask_absent_classes(accuracy))
        source = source._replace(criterion=mask_absent_classes(cross_entropy), metric=metric)
    return source


def class_name(names: list[str], number: int) -> str:
    """The name of a class; beyond the names it is one of them, turned as in `with_rotations`."""
    turns, index = divmod(number, len(names))
    return f"{names[index]}, turned by {90 * turns} degrees" if turns else names[index]


def _describe(
    splits: dict[str, Split], sizes: dict[str, SizeRange], about: About, for_training: dict[str, int]
) -> About:
    """``Source.about``: what was given, the task, the protocol and the number of classes."""
    classes = {name: len(split.starts) for name, split in splits.items()}
    ways, shots, queries = (describe_size(size) for size in sizes.values())
    task = f"{ways}-way {shots}-shot"
    split_name = f" ({about['split']})" if "split" in about else ""
    kind = "classes, some seen in training" if about.get("shared_classes") else "unseen classes"
    protocol = f"{task}, {queries} queries a class, from {classes['test']} {kind}{split_name}"
    given = about | {f"train_{name}": n for name, n in for_training.items()}
    return {**given, "task": task, "protocol": protocol, **sizes, "classes": classes}


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


def _check_split(name: str, split: Split, most: dict[str, int], keys: dict[str, str], names: list[str] | None) -> None:
    """Raise UserError unless the split has as many classes, and each of them as many images, as a task takes.

    ``keys`` are the settings that the sizes of its tasks come from, for messages.
    """
    classes, least = len(split.counts), int(split.counts.min())
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
