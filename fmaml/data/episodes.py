"""N-way K-shot tasks out of a tensor of images: a few gathers, on the device that holds the images."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from ..losses import IGNORED, Apply, accuracy, cross_entropy
from ..types import Batch, Params, Task
from .ragged import Size, among, bounds, in_words, real, thin
from .rng import fold, task_keys
from .source import ACCURACY, Source


class Split(NamedTuple):
    """The classes of one split, one after the other; they may differ in size."""

    images: Tensor  # uint8 [images, channels, height, width]
    start: Tensor  # int64 [classes]: where a class begins in `images`
    count: Tensor  # int64 [classes]: how many images it has
    most: int  # max(count), known without asking the device


def even(images: Tensor) -> Split:
    """A split of classes of one size from uint8 [classes, each, channels, height, width]."""
    classes, each = images.shape[:2]
    start = torch.arange(classes, device=images.device) * each
    return Split(images.flatten(0, 1), start, torch.full_like(start, each), each)


def rotated(split: Split) -> Split:
    """Four times the classes: each counts again turned by 90, 180 and 270 degrees. Images must be square."""
    turns = range(4)
    images = torch.cat([split.images.rot90(turn, (2, 3)) for turn in turns])
    start = torch.cat([split.start + turn * len(split.images) for turn in turns])
    return Split(images, start, split.count.repeat(4), split.most)


def cut(images: Tensor, classes: dict[str, int], rotate: tuple[str, ...]) -> dict[str, Split]:
    """Uint8 [classes, each, C, H, W] cut into consecutive splits of so many classes, rotated where named."""
    parts = zip(classes, images.split(list(classes.values())), strict=True)
    return {name: rotated(even(part)) if name in rotate else even(part) for name, part in parts}


def sample_episodes(split: Split, keys: Tensor, *, ways: int, shots: int, queries: int) -> Task:
    """One task a key: support x [tasks, ways * shots, C, H, W] in [0, 1], y int64 [tasks, ways * shots].

    Query: the same with ``queries``. Rows go class by class; label i is the i-th class drawn: a random one.
    Every class of the split and every image of a chosen class gets a random score, and the highest win.
    Scores that tie (chance 2^-64 a pair) are the one thing that two devices may settle differently.
    """
    classes = len(split.start)
    slots = torch.arange(classes + ways * split.most, device=keys.device)
    scores = fold(keys[:, None], slots)  # [tasks, slots]: first of the classes, then of the images, way by way
    chosen = scores[:, :classes].topk(ways).indices  # [tasks, ways]

    absent = slots[: split.most] >= split.count[chosen][..., None]  # [tasks, ways, most]
    of_images = scores[:, classes:].unflatten(1, (ways, split.most)).masked_fill(absent, -(2**63))
    drawn = of_images.topk(shots + queries).indices  # [tasks, ways, shots + queries], all different
    rows = drawn + split.start[chosen][..., None]
    return Task(_batch(split, rows[..., :shots]), _batch(split, rows[..., shots:]))


def _batch(split: Split, rows: Tensor) -> Batch:
    """Row numbers [tasks, ways, each] to examples [tasks, ways * each]."""
    tasks, ways, each = rows.shape
    # A product: CUDA would divide by a constant through its reciprocal, and differ from the CPU in the last
    # bit.
    x = split.images[rows.flatten(1)].float().mul_(1 / 255)
    y = torch.arange(ways, device=rows.device).repeat_interleave(each, output_size=ways * each)
    return Batch(x, y.repeat(tasks, 1))


def episodes(
    splits: dict[str, Split],
    *,
    seed: int,
    ways: Size,
    shots: Size,
    queries: Size,
    about: dict[str, Any],
    names: dict[str, list[str]] | None = None,
    train_ways: int | None = None,
) -> Source:
    """A source of tasks over class splits. UserError, naming split and class, for one that is too small.

    A range as ``ways``, ``shots`` or ``queries`` makes tasks of different sizes, see `fmaml.data.ragged`. ``names``
    are the classes of each split, for messages; ``about["split"]`` says whose splits they are. ``train_ways`` are the
    ways of training tasks, where they differ from those of all others.
    """
    most = {"ways": bounds(ways)[1], "shots": bounds(shots)[1], "queries": bounds(queries)[1]}
    for name, split in splits.items():
        _check(
            name,
            split,
            train_ways or most["ways"] if name == "train" else most["ways"],
            most["shots"] + most["queries"],
            (names or {}).get(name),
        )
    sizes = {"ways": ways, "shots": shots, "queries": queries}
    padded = any(isinstance(size, list | tuple) for size in sizes.values())

    def sample(split: str, step: int, tasks: range) -> Task:
        images = splits[split]
        keys = task_keys(seed, split, step, tasks, images.start.device)
        other = {"ways": train_ways} if split == "train" and train_ways is not None else {}
        full = sample_episodes(images, keys, **most | other)
        return thin(full, keys, **sizes | other) if padded else full

    classes = {name: len(split.start) for name, split in splits.items()}
    task = f"{in_words(ways)}-way {in_words(shots)}-shot"
    whose = f" ({about['split']})" if "split" in about else ""
    protocol = f"{task}, {in_words(queries)} queries a class, from {classes['test']} unseen classes{whose}"
    about = about if train_ways is None else {**about, "train_ways": train_ways}
    facts = {**about, "task": task, "protocol": protocol, **sizes, "classes": classes}
    inputs = tuple(next(iter(splits.values())).images.shape[1:])
    guess = [1 / n for n in range(bounds(ways)[0], most["ways"] + 1)]  # right, in a task of n classes
    source = Source(
        sample,
        inputs,
        max(most["ways"], train_ways or 0),
        facts,
        show,
        chance=sum(guess) / len(guess),
        data=dict(splits),
    )
    if padded:
        return source._replace(criterion=among(cross_entropy), metric=ACCURACY._replace(fn=among(accuracy)))
    return source


def show(folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
    """task.png: the first task, and what was predicted for it after the last inner step."""
    from .pictures import image_task, save_figure  # only now: matplotlib takes half a second

    (support, query), phi = tasks[0], phis[0][-1]
    ways = int(query.y.max()) + 1
    predicted = apply(phi, query.x)[query.y != IGNORED, :ways].argmax(-1)
    save_figure(image_task(Task(real(support), real(query)), predicted), folder / "task.png")


def _check(name: str, split: Split, ways: int, each: int, names: list[str] | None) -> None:
    """Raise UserError unless the split has ``ways`` classes, and all its classes have ``each`` images."""
    classes, least = len(split.count), int(split.count.min())
    if ways > classes:
        raise UserError(
            f"data.ways = {ways}: split {name} has {classes} classes, and those of a task are all different; "
            f"give at most {classes}"
        )
    if each > least:
        smallest = int(split.count.argmin())
        raise UserError(
            f"data.shots + data.queries = {each}: class {names[smallest] if names else smallest} of split {name} has "
            f"{least} images, and those of a task are all different; give shots + queries of at most {least}"
        )
