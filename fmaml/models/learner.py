"""Trained models in use: a `Learner` learns a new task from its support set, an `Adapted` predicts.

Prediction is inductive: it depends only on the support set and on that example. Batch norm uses the statistics of the
support set, which are stored with the network.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checkpoints.checkpoint_format import flatten
from ..data.preprocessing import Ink, in_own_units
from ..errors import Error
from ..evaluation import trajectory_of
from ..files.plain_text import counted, printable
from ..torch_fixes.support_statistics import Statistics, statistics_of, with_statistics
from ..tree import leaves
from ..types import Batch, Params, Theta
from .blueprint import Blueprint, Network
from .features import EXAMPLES_AT_ONCE, head_inputs, network_params
from .model_file import Metadata, write_model
from .resize_head import head_of, starting_from_prototypes, with_outputs
from .user_images import Images, Shape, read_support, to_inputs, to_tensor

SHOWN = 72  # characters of a list of names in a `repr`


class Prediction(NamedTuple):
    """The predictions of an adapted network for n examples.

    >>> import torch, fmaml
    >>> labels, probabilities = fmaml.Prediction(["cat"], torch.tensor([[0.75, 0.25]]))
    >>> labels
    ['cat']
    """

    labels: list[str]  # the likeliest class of each example
    probabilities: Tensor  # [n, classes], in the order of `Adapted.classes`

    def __repr__(self) -> str:
        return f"Prediction({counted(len(self.labels), 'example')}: {in_a_line(self.labels)})"


@dataclass(frozen=True)
class Adapted:
    """A network adapted to one task. An output depends on its own example alone.

    ``classes`` are the names of the classes, sorted; empty where the targets are values or symbols.

    >>> import torch, fmaml
    >>> adapted = fmaml.load("omniglot").adapt({"a": torch.rand(1, 1, 28, 28), "b": torch.rand(1, 1, 28, 28)})
    >>> adapted.predict(torch.rand(4, 1, 28, 28)).probabilities.shape
    torch.Size([4, 2])
    """

    metadata: Metadata
    blueprint: Blueprint
    classes: list[str]
    params: Params
    statistics: list[Statistics]

    def __repr__(self) -> str:
        """One line, without the tensors."""
        name = printable(str(self.metadata.get("name")), kept="")
        if not self.classes:
            return f"Adapted({name}, {counted(self.blueprint.outputs, 'output')})"
        return f"Adapted({name}, {len(self.classes)} classes: {in_a_line(self.classes)})"

    def predict(self, images: Images, ink: Ink = "auto") -> Prediction:
        """The likeliest class of each image, and the probability of every class.

        Args:
            images: a file or a folder of images, a `PIL.Image`, an array uint8 [height, width] or [height, width, 3],
                or a sequence of these. A tensor [n, *inputs] has values as in training.
            ink: the ink of drawings, for a network of characters: "dark", "light", or "auto", which looks at the border
                of each drawing.

        Returns:
            labels, a list of n names, and probabilities, a tensor [n, classes].

        Raises:
            Error: an image cannot be read.
            ValueError: the network was trained for values, not for classes: use `outputs`. Or a tensor is of another
                shape or type, or holds values for which the network's outputs are not finite.
        """
        if not self.classes:
            raise ValueError("predict: this network has no classes; `outputs` gives its values")
        logits = self.outputs(to_inputs(images, self.shape, ink))
        if not bool(logits.isfinite().all()):
            first = int((~logits.isfinite()).any(-1).nonzero()[0])
            raise ValueError(f"predict: image {first}: the outputs are not finite; give values as in training, 0 to 1")
        labels = [self.classes[i] for i in logits.argmax(-1).tolist()]
        return Prediction(labels, logits.softmax(-1))

    def features(self, images: Any, ink: Ink = "auto") -> Tensor:
        """The features of each image, which the adapted head gets: [n, width]. They depend on that image alone.

        Args:
            images, ink: as in `predict`; or x as in `outputs`.

        Raises:
            Error: an image cannot be read.
            ValueError: the network has no linear layer ``head``.
        """
        x = to_inputs(images, self.shape, ink)
        apply = with_statistics(
            self.blueprint.build(len(self.classes) or self.blueprint.outputs).model.apply, self.statistics
        )
        return head_inputs(self.blueprint, apply, self.params, x)

    @torch.no_grad()
    def outputs(self, x: Any) -> Tensor:
        """The network's outputs [n, *output], such as logits, for x [n, *inputs].

        Of a network trained on a table or on signals, x and outputs that are values are in the units of that file.

        Args:
            x: a tensor; or, where it is numbers and no images, an array, a table of pandas or lists.

        Raises:
            ValueError: numbers of another shape.
        """
        x = to_inputs(x, self.shape)
        parts = [self._apply(self.params, part) for part in x.split(EXAMPLES_AT_ONCE)]
        return torch.cat(parts)

    def save(self, path: str | Path) -> None:
        """Write the adapted network as one file, which `fmaml.load_adapted` and ``fmaml predict`` read."""
        tensors = flatten({"params": self.params, "statistics": self.statistics})
        write_model(Path(path), tensors, {**self.metadata, "kind": "adapted", "classes": self.classes})

    @property
    def shape(self) -> Shape:
        """The shape and type of the network's inputs."""
        return shape_of(self.blueprint, self.params)

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: a network that was built does not pickle, and is built again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _apply(self) -> Callable[[Params, Tensor], Tensor]:
        width = len(self.classes) or self.blueprint.outputs
        return in_own_units(
            with_statistics(self.blueprint.build(width).model.apply, self.statistics), self.blueprint.scaling
        )


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
        if targets is None and not isinstance(support, Tensor):
            if self.blueprint.targets != "classes":
                raise ValueError(
                    "adapt: this network was trained for values, so x needs its targets: adapt(x, y), in Python alone"
                )
            by_class, _ = read_support(support, self.shape, ink)
            names = sorted(by_class)
            x = torch.cat([by_class[name] for name in names])
            y = torch.repeat_interleave(torch.tensor([len(by_class[name]) for name in names]))
            return self._adapt(Batch(x, y), names, steps)
        if targets is None:
            raise ValueError("adapt: a support set that is a tensor needs its targets")
        x, y = to_inputs(support, self.shape), to_tensor(targets, "adapt: targets are numbers")
        if self.blueprint.targets == "classes":
            return self._adapt(Batch(x, y), names_of_classes(y, len(x)), steps)
        return self._adapt(Batch(x, self._values_of(y, len(x))), [], steps)

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

    def _values_of(self, y: Tensor, examples: int) -> Tensor:
        """Targets that are values or symbols, in the network's type; ValueError if there is not one an example."""
        if self.blueprint.targets == "values":
            y = y.to(self.shape.dtype)
            if y.ndim == 1 and self.blueprint.outputs == 1:
                y = y[:, None]
        if len(y) != examples or (self.blueprint.targets == "values" and y.shape[1:] != (self.blueprint.outputs,)):
            wanted = f"[{examples}, {self.blueprint.outputs}]" if self.blueprint.targets == "values" else f"{examples}"
            raise ValueError(f"adapt: {examples} examples need targets {wanted}; these are {list(y.shape)}")
        return y

    @torch.no_grad()
    def _adapt(self, support: Batch, classes: list[str], steps: int | None) -> Adapted:
        if self.blueprint.scaling is not None:
            support = self.blueprint.scaling.support(support)
        width = len(classes) or self.blueprint.outputs
        network, theta = self.for_outputs(width)
        if steps is not None and network.algorithm.trajectory is None:
            raise ValueError(f"steps = {steps}: {self.blueprint.algorithm['name']} takes no inner steps; leave it out")
        if steps is not None and (not isinstance(steps, int) or steps < 0):
            raise ValueError(f"steps = {steps}: must be a whole number, 0 or more")
        steps = self.metadata["steps"] if steps is None and network.algorithm.trajectory else steps
        phi = trajectory_of(network.algorithm, theta, support, steps)[-1]
        if not all(bool(value.isfinite().all()) for value in phi.values()):
            raise ValueError("adapt: the network diverges on this support set; give fewer steps")
        return Adapted(self.metadata, self.blueprint, classes, phi, statistics_of(network.model.apply, phi, support.x))

    def for_outputs(self, outputs: int) -> tuple[Network, Theta]:
        """The network with this number of outputs, and theta with a head of that width."""
        network = self.blueprint.build(outputs)
        if outputs == self.blueprint.outputs:
            return network, self.theta
        try:
            theta = with_outputs(self.theta, self.blueprint.template(outputs))
        except ValueError as error:
            raise Error(
                f"{outputs} classes: {self.blueprint.algorithm['name']} was trained for {self.blueprint.outputs}, and "
                f"its learnt parts have no other width ({error}); take a model of protonet, r2d2, proto_maml or maml"
            ) from None
        if outputs < self.blueprint.outputs or "head" in self.blueprint.algorithm:  # which is made for each task
            return network, theta
        head = head_of(self.blueprint.params(self.blueprint.outputs), self.blueprint.params(outputs))
        algorithm = starting_from_prototypes(network.algorithm, network.model.apply, head)
        return network._replace(algorithm=algorithm), theta

    def save(self, path: str | Path) -> None:
        """Write the model as one file, which `fmaml.load` reads."""
        write_model(Path(path), flatten(self.theta), self.metadata)

    @property
    def shape(self) -> Shape:
        """The shape and type of the network's inputs."""
        return shape_of(self.blueprint, self.theta)


def in_a_line(names: list[str]) -> str:
    """The first names, as many as fit, and the number of the others."""
    ends = accumulate(len(name) + 2 for name in names)
    shown = max(1, sum(end <= SHOWN for end in ends))
    more = [f".. {len(names) - shown} more"] if len(names) > shown else []
    return printable(", ".join([name[:SHOWN] for name in names[:shown]] + more), kept="")


def shape_of(blueprint: Blueprint, parameters: Theta) -> Shape:
    """The shape and type of the network's inputs: symbols, or numbers of the parameters' type."""
    dtype = torch.int64 if blueprint.targets == "symbols" else leaves(parameters)[0].dtype
    return Shape(blueprint.inputs, blueprint.form, dtype)


def names_of_classes(y: Tensor, examples: int) -> list[str]:
    """The classes "0", "1", .. of class numbers; ValueError unless each of two or more occurs, one for each example."""
    if y.shape != (examples,) or y.dtype != torch.int64:
        found = f"{str(y.dtype).removeprefix('torch.')} {list(y.shape)}"
        raise ValueError(
            f"adapt: targets must be int64 [{examples}], a class number for each example; these are {found}"
        )
    numbers = y.unique().tolist()
    if len(numbers) < 2 or numbers != list(range(len(numbers))):
        raise ValueError("adapt: class numbers must be 0, 1, .. for two or more classes, each with an example")
    return list(map(str, numbers))
