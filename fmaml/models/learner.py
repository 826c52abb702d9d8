"""Trained models in use: a `Learner` learns a new task from its support set, an `Adapted` predicts and learns more."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..calibration import class_means, seen_features
from ..checkpoints.checkpoint_format import flatten
from ..data.preprocessing import Ink
from ..errors import note
from ..evaluation import trajectory_of
from ..files.plain_text import printable
from ..torch_fixes.support_statistics import statistics_of, with_statistics
from ..types import Theta
from .blueprint import Blueprint, Network
from .examples import read_examples
from .features import head_inputs, network_params
from .kept_support import (
    KeptSupport,
    algorithm_of_features,
    features_if_enough,
    features_of,
    seen_before,
    to_tensors,
    why_not_kept,
)
from .model_file import Metadata, rounded, write_model
from .predictor import Predictor, shape_of
from .reading import Reader
from .resize_head import network_for_outputs
from .user_images import Shape, to_inputs


@dataclass(frozen=True, repr=False)
class Adapted(Predictor):
    """A network adapted to one task. An output depends on its own example alone.

    ``classes`` are the names of the classes, sorted; empty where the targets are values or symbols.

    >>> import torch, fmaml
    >>> adapted = fmaml.load("omniglot").adapt({"a": torch.rand(1, 1, 28, 28), "b": torch.rand(1, 1, 28, 28)})
    >>> adapted.predict(torch.rand(4, 1, 28, 28)).probabilities.shape
    torch.Size([4, 2])
    """

    kept: KeptSupport | None = None  # to add more examples

    def add(self, support: Any, targets: Any = None, *, steps: int | None = None, ink: Ink = "auto") -> "Adapted":
        """Learn more examples of these classes, and of new ones: the same as adapting to all examples at once.

        For this the network keeps its support set. `save` writes it to the file on request.

        Args:
            support, targets, ink: as in `Learner.adapt`. One class is enough. A class with a new name is added. Class
                numbers are positions in ``classes``, and new numbers follow the last.
            steps: inner steps. By default as many as for the earlier examples.

        Returns:
            The network adapted to all examples. This one does not change.

        Raises:
            ValueError: the network is from a file without its support set; or as in `Learner.adapt`.
            Error: as in `Learner.adapt`.

        >>> import torch, fmaml
        >>> adapted = fmaml.load("omniglot").adapt({name: torch.rand(2, 1, 28, 28) for name in "ab"})
        >>> adapted.add({"b": torch.rand(1, 1, 28, 28), "c": torch.rand(3, 1, 28, 28)}).counts
        {'a': 2, 'b': 3, 'c': 3}
        """
        if self.kept is None:
            raise ValueError(why_not_kept(self.blueprint))
        more, names, white = read_examples(self.blueprint, self.shape, support, targets, ink, self.classes)
        if self.kept.of_features:
            more = more._replace(x=features_of(self.blueprint, self.params, more.x))
        if again := seen_before(more.x, self.kept.support.x):
            note(f"{again} of these {len(more.x)} examples were learnt before; they count once more")
        kept, classes = self.kept.joined(self.classes, more, names)
        steps = kept.steps if steps is None else steps
        return self.learner.with_white(white).adapt_to(kept._replace(steps=steps), classes)

    @property
    def counts(self) -> dict[str, int] | None:
        """The number of examples of each class; None if the support set was not kept."""
        return None if self.kept is None else self.kept.counts(self.classes)

    @cached_property
    def kept_features(self) -> KeptSupport | None:
        """The features of the support set, if they are enough to add more examples."""
        if self.kept is None or self.kept.of_features:
            return self.kept
        return features_if_enough(self.blueprint, self.kept)

    @property
    def learner(self) -> "Learner":
        """The network before adaptation; ValueError if the support set was not kept."""
        if self.kept is None:
            raise ValueError(why_not_kept(self.blueprint))
        metadata = {key: value for key, value in self.metadata.items() if key not in ("classes", "kept")}
        return Learner({**metadata, "kind": "learner"}, self.blueprint, self.kept.theta)

    def save(self, path: str | Path, *, keep_support: bool = False) -> None:
        """Write the adapted network as one file, which `fmaml.load_adapted` and ``fmaml predict`` read.

        Args:
            path: the file.
            keep_support: write the support set too, so that `add` works on the loaded network. Prototypes and ridge
                regression without batch norm need only its features, which are always written.
        """
        tensors = flatten({"params": self.params, "statistics": self.statistics})
        tensors |= {} if self.means is None else {"means": self.means}
        kept = self.kept if keep_support else self.kept_features
        facts = None
        if kept is not None:
            tensors |= to_tensors(kept, self.params)
            facts = {"of_features": kept.of_features, "steps": kept.steps}
        write_model(Path(path), tensors, {**self.metadata, "kind": "adapted", "classes": self.classes, "kept": facts})


@dataclass(frozen=True)
class Learner:
    """A meta-trained network with its algorithm: what `fmaml.load` returns.

    >>> import torch, fmaml
    >>> learner = fmaml.load("omniglot_prototypes")
    >>> learner.adapt({name: torch.rand(2, 1, 28, 28) for name in ("c", "a", "b")}).classes
    ['a', 'b', 'c']
    """

    metadata: Metadata
    blueprint: Blueprint
    theta: Theta

    def __repr__(self) -> str:
        """One line, without the tensors."""
        name, network, algorithm = self.metadata.get("name"), self.blueprint.model, self.blueprint.algorithm
        task = f", {self.metadata['task']}" if self.metadata.get("task") else ""
        return printable(f"Learner({name}, {algorithm['name']} on {network['name']}{task})", kept="")

    def adapt(self, support: Any, targets: Any = None, *, steps: int | None = None, ink: Ink = "auto") -> Adapted:
        """Learn a new task from its support set.

        Give the support set in one of three forms:

        - a folder, with one subfolder of images for each class, or with one image for each class;
        - a mapping from each class to its images, in any form that `Adapted.predict` takes;
        - inputs x and ``targets`` y, as tensors, or as arrays, tables of pandas or lists of numbers.

        Args:
            support: the folder, the mapping, or x [n, *inputs].
            targets: y, only with x: [n, *target], or [n] if a target is one number. Class numbers are int64 [n], and
                the classes get the names "0", "1", ..
            steps: inner steps. By default as many as in the model's own test.
            ink: of drawings, as in `Adapted.predict`.

        Returns:
            The adapted network. The number of classes may differ from that in training.

        Raises:
            Error: the support set is missing, or has only one class, or an image cannot be read.
            ValueError: a tensor has a wrong shape or type. Or ``steps`` is given to an algorithm without inner steps.
                Or the algorithm learnt parts that fit only the number of classes in training.

        >>> import torch, fmaml
        >>> learner = fmaml.load("omniglot_prototypes")
        >>> learner.adapt(torch.rand(6, 1, 28, 28), torch.tensor([0, 0, 1, 1, 2, 2]))
        Adapted(omniglot_prototypes, 3 classes: 0, 1, 2)
        """
        examples, classes, white = read_examples(self.blueprint, self.shape, support, targets, ink)
        return self.with_white(white).adapt_to(KeptSupport(self.theta, examples, False, steps), classes)

    def with_white(self, white: int) -> "Learner":
        """The same learner; its 16-bit pictures have white of at least this value."""
        return replace(self, metadata={**self.metadata, "white": white}) if white else self

    def features(self, images: Any, ink: Ink = "auto") -> Tensor:
        """The features of images, the inputs of the head: [n, width].

        Networks with a last linear layer ``head`` have them, with any algorithm: `conv4`, `resnet12`, `conv1d`, those
        of timm and torchvision, and own modules. For `protonet` and `r2d2` they are the features that `adapt` uses.
        Algorithms with an inner loop may change them for a task: those are `Adapted.features`.

        Batch norm takes the statistics of these images, as `adapt` does of a support set. Other features, as of a
        frozen pretrained network, depend on each image alone.

        Args:
            images, ink: as in `Adapted.predict`; or x as in `Adapted.outputs`.

        Raises:
            Error: an image cannot be read.
            ValueError: the network has no linear layer ``head``.

        >>> import torch, fmaml
        >>> fmaml.load("omniglot_prototypes").features(torch.rand(6, 1, 28, 28)).shape
        torch.Size([6, 64])
        """
        x = to_inputs(images, self.shape, ink)
        apply, params = self.blueprint.build(self.blueprint.outputs).model.apply, network_params(self.theta)
        seen = x if self.blueprint.scaling is None else self.blueprint.scaling.inputs(x)
        return head_inputs(self.blueprint, with_statistics(apply, statistics_of(apply, params, seen)), params, x)

    @torch.no_grad()
    def adapt_to(self, kept: KeptSupport, classes: list[str]) -> Adapted:
        """Adapt to a support set in the network's units, or to its features, and keep it."""
        width = len(classes) or self.blueprint.outputs
        (model, algorithm), theta = self.for_outputs(width)
        steps = kept.steps
        if steps is not None and algorithm.trajectory is None:
            raise ValueError(f"steps = {steps}: {self.blueprint.algorithm['name']} takes no inner steps; leave it out")
        if steps is not None and (not isinstance(steps, int) or steps < 0):
            raise ValueError(f"steps = {steps}: must be a whole number, 0 or more")
        found = kept if kept.of_features else features_if_enough(self.blueprint, kept)
        if found is not None:
            phi = algorithm_of_features(self.blueprint).adapt(theta, found.support)
        else:
            steps = self.metadata["steps"] if steps is None and algorithm.trajectory else steps
            phi = trajectory_of(algorithm, theta, kept.support, steps)[-1]
        if not all(bool(value.isfinite().all()) for value in phi.values()):
            raise ValueError("adapt: the network diverges on this support set; give fewer steps")
        statistics = [] if found else statistics_of(model.apply, phi, kept.support.x)
        means = None
        if classes:
            apply = with_statistics(model.apply, statistics)
            x = found.support.x if found else seen_features(apply, phi, kept.support.x, width)
            means = class_means(x, kept.support.y, width)
        adapted = Adapted(self.metadata, self.blueprint, classes, phi, statistics, means, kept)
        vars(adapted)["kept_features"] = found  # or the network runs again for them
        return adapted

    def for_outputs(self, outputs: int) -> tuple[Network, Theta]:
        """The network with this number of outputs, and theta with a head of that width."""
        return network_for_outputs(self.blueprint, self.theta, outputs)

    def stream(self, state: str | Path | None = None) -> Reader:
        """A reader that predicts each chunk of a text of bytes, then learns it, in constant memory.

        For models of `fmaml.streamed`, such as those of ``fmaml run stream``. ``reader.read(text)`` returns the bits
        per byte of each chunk that the text completes. ``reader.next_byte()`` returns the probabilities of the next
        byte, and ``reader.save(path)`` writes the state.

        Args:
            state: a file of ``reader.save``, to continue from.

        Raises:
            Error: the model was not trained on streams of bytes, or the file is not a state of it.

        Source: arXiv 2512.23675.
        """
        reader = Reader(self.metadata, self.blueprint, self.theta)
        if state is not None:
            reader.resume(Path(state))
        return reader

    def save(self, path: str | Path, *, half: bool = False) -> None:
        """Write the model as one file, which `fmaml.load` reads.

        Args:
            path: the file.
            half: round the tensors to half precision, for a file of half the size. It is read as float32. Networks
                adapted from it are stored the same way, without further rounding.
        """
        tensors, metadata = flatten(self.theta), self.metadata
        if half:
            tensors, metadata = {name: rounded(x) for name, x in tensors.items()}, {**metadata, "half": True}
        write_model(Path(path), tensors, metadata)

    @property
    def shape(self) -> Shape:
        """The shape and type of the network's inputs."""
        return shape_of(self.metadata, self.blueprint, self.theta)
