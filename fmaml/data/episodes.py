"""Sources of N-way K-shot tasks and their common settings."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..errors import Error
from ..losses import Apply, accuracy, cross_entropy
from ..setting_types import Change
from ..types import Params, Task
from .augment import augmented
from .class_examples import Split, class_name, draw_classes, sample_batches, sample_episodes
from .dataset_facts import Names
from .preprocessing import Form, Scaling
from .ragged import SizeRange, bounds, describe_size, mask_absent_classes, queries_a_class, randomize_sizes
from .source import ACCURACY, About, Source, task_keys

Splits = dict[str, Split]  # "train", "val" and "test"


class Episode(NamedTuple):
    """The size of a task: the common settings of sources of N-way K-shot tasks.

    A task's support x is float32 [ways * shots, *shape] and y int64 [ways * shots]. The query set has the same shapes
    with ``queries``, also per class, instead of ``shots``. A range (least, most) as ``ways``, ``shots`` or ``queries``
    makes tasks of different sizes, see `fmaml.data.ragged`. ``train_ways`` and ``train_shots`` replace ``ways`` and
    ``shots`` in training tasks. ``augment`` mirrors ("flip"), shifts ("shift") or recolours ("colour") images of
    training tasks at random. With ``train_batch`` each training task is a batch of so many examples of all classes, see
    `sample_batches`.
    """

    ways: SizeRange
    shots: SizeRange
    queries: SizeRange
    train_ways: int | None = None
    train_shots: int | None = None
    augment: Sequence[Change] = ()
    train_batch: int | None = None

    @property
    def for_training(self) -> dict[str, int]:
        """The sizes that differ in training tasks."""
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
    """Make a source of N-way K-shot tasks from the splits "train", "val" and "test". Shapes: see `sample_episodes`.

    ``about`` becomes part of ``Source.about``. Its key "split" is the split's name in reports, and "shared_classes" are
    the classes in more than one split. ``names`` holds the class names of each split, for messages and reports. If a
    split has more classes, they are rotations of the named ones. ``form`` is that of images, ``scaling`` that of
    signals. Raises Error, with split and class, if a split has too few classes or a class too few examples.
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
            outputs=len(self.splits["train"].starts)
            if self.episode.train_batch
            else max(most, self.episode.train_ways or 0),
            about=self.about,
            show=_save_task,
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
        drawn = self.draw(split, keys)
        return augmented(drawn, keys, self.episode.augment) if self.episode.augment and split == "train" else drawn

    def draw(self, split: str, keys: Tensor) -> Task:
        if self.episode.train_batch and split == "train":
            return sample_batches(self.splits[split], keys, self.episode.train_batch)
        drawn = sample_episodes(self.splits[split], keys, **self.episode.most(split))
        return randomize_sizes(drawn, keys, **self.episode.sizes(split)) if self.episode.padded else drawn

    def classes_of(self, split: str, step: int, tasks: range) -> list[list[str]]:
        drawn = draw_classes(self.splits[split], self.keys(split, step, tasks), self.episode.most(split)["ways"])
        return [[class_name((self.names or {})[split], i) for i in row] for row in drawn.tolist()]

    def of_features(self, fn: Callable[[Tensor], Tensor]) -> Source:
        """A source with features of images as x. `Source.seen` still gives the images."""
        features = {name: split._replace(images=fn(split.images)) for name, split in self.splits.items()}
        sample = self._replace(splits=features).sample
        return self.source()._replace(sample=sample, of_features=None, seen=self.sample)


def _describe(splits: Splits, episode: Episode, about: About) -> About:
    """Complete ``Source.about`` by the task, the protocol and the number of classes."""
    classes = {name: len(split.starts) for name, split in splits.items()}
    sizes = episode.sizes("test")
    ways, shots = describe_size(sizes["ways"]), describe_size(sizes["shots"])
    task = f"{ways}-way {shots}-shot"
    split_name = f" ({about['split']})" if "split" in about else ""
    kind = "classes, some seen in training" if about.get("shared_classes") else "unseen classes"
    protocol = f"{task}, {queries_a_class(sizes['queries'])}, from {classes['test']} {kind}{split_name}"
    given = about | {f"train_{name}": size for name, size in episode.for_training.items()}
    given |= {"train_batch": episode.train_batch} if episode.train_batch else {}
    augment = {"augment": [*episode.augment]} if episode.augment else {}
    return {**given, "task": task, "protocol": protocol, **sizes, "classes": classes, **augment}


def _check_split(name: str, split: Split, episode: Episode, names: list[str]) -> None:
    """Raise Error unless the split has enough classes for a task, and each class enough examples."""
    if name == "train" and episode.train_batch:
        return
    most, classes, least = episode.most(name), len(split.counts), int(split.counts.min())
    keys = {size: f"train_{size}" if name == "train" and size in episode.for_training else size for size in most}
    if most["ways"] > classes:
        raise Error(
            f"data.{keys['ways']} = {most['ways']}: split {name} has {classes} classes, fewer than a task "
            f"needs; give at most {classes}"
        )
    each = most["shots"] + most["queries"]
    if each > least:
        smallest = int(split.counts.argmin())
        named = class_name(names, smallest) if names else smallest
        raise Error(
            f"data.{keys['shots']} + data.queries = {each}: class {named} of split {name} has {least} examples, "
            f"fewer than a task needs; give {keys['shots']} + queries of at most {least}"
        )


def _save_task(folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
    from .pictures import save_task  # imported here because matplotlib takes half a second

    save_task(folder, tasks, phis, apply)
