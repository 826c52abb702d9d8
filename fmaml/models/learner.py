"""Trained models in use: a `Learner` learns a new task from its support set, an `Adapted` predicts.

Prediction is inductive: it depends only on the support set and on that example. Batch norm uses the statistics of the
support set, which are stored with the network.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..calibration import NONE, Calibration, class_means, distance_to_nearest, read_calibration, seen_features
from ..checkpoints.checkpoint_format import flatten
from ..data.preprocessing import Ink, in_own_units
from ..errors import Error, note
from ..evaluation import trajectory_of
from ..files.plain_text import counted, printable
from ..torch_fixes.support_statistics import Statistics, statistics_of, with_statistics
from ..tree import leaves
from ..types import Batch, Params, Theta
from .blueprint import Blueprint, Network
from .examples import read_examples
from .features import EXAMPLES_AT_ONCE, head_inputs, network_params
from .kept_support import (
    FITS_HEAD_ALONE,
    KeptSupport,
    algorithm_of_features,
    features_of,
    seen_before,
    to_tensors,
    why_not_kept,
)
from .model_file import Metadata, write_model
from .reading import Reader
from .resize_head import check_is_network, head_of, starting_from_prototypes, with_outputs
from .user_images import Images, Shape, to_inputs

SHOWN = 72  # characters of a list of names in a `repr`


class Prediction(NamedTuple):
    """The predictions of an adapted network for n examples.

    >>> import torch, fmaml
    >>> labels, probabilities = fmaml.Prediction(["cat"], torch.tensor([[0.75, 0.25]]))
    >>> labels
    ['cat']
    """

    labels: list[str]  # the likeliest column of each example: a class, or "none of these"
    probabilities: Tensor  # [n, classes], in the order of `Adapted.classes`; with ``reject`` one more, of none of these

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
    means: Tensor | None = None  # of each class's features, [classes, features], to refuse pictures far from all
    kept: KeptSupport | None = None  # to add more examples

    def __repr__(self) -> str:
        """One line, without the tensors."""
        name = printable(str(self.metadata.get("name")), kept="")
        if not self.classes:
            return f"Adapted({name}, {counted(self.blueprint.outputs, 'output')})"
        return f"Adapted({name}, {len(self.classes)} classes: {in_a_line(self.classes)})"

    def predict(self, images: Images, ink: Ink = "auto", *, reject: float | None = None) -> Prediction:
        """The likeliest class of each image, and the probability of every class.

        The logits are divided by the model's temperature, if it was measured; see `fmaml.calibration`.

        Args:
            images: a file or a folder of images, a `PIL.Image`, an array uint8 [height, width] or [height, width, 3],
                or a sequence of these. A tensor [n, *inputs] has values as in training.
            ink: the ink of drawings, for a network of characters: "dark", "light", or "auto", which looks at the border
                of each drawing.
            reject: the share of pictures of these classes that may be refused, above 0 and below 0.5. Then a picture
                that is far from every class gets the label "none of these". The limit is that of known pictures of
                the validation tasks, or of your own if ``fmaml adapt`` measured it. Of n pictures, the smallest share
                is 1 / (n + 1). None: refuse nothing.

        Returns:
            labels, a list of n names, and probabilities, a tensor [n, classes]. With ``reject`` a last column is for
            none of these, and the classes share the rest. The label is the column of the largest probability.

        Raises:
            Error: an image cannot be read.
            ValueError: the network was trained for values, not for classes: use `outputs`. Or a tensor is of another
                shape or type, or holds values for which the network's outputs are not finite. Or ``reject`` is not in
                its range, or the model has no measured limit.
        """
        if not self.classes:
            raise ValueError("predict: this network has no classes; `outputs` gives its values")
        x = to_inputs(images, self.shape, ink)
        logits = self.outputs(x)
        if not bool(logits.isfinite().all()):
            first = int((~logits.isfinite()).any(-1).nonzero()[0])
            raise ValueError(f"predict: image {first}: the outputs are not finite; give values as in training, 0 to 1")
        probabilities = self.probabilities_of(logits)
        if reject is not None:
            far = self._none_of_these(x, reject).to(probabilities)[:, None]
            none = far * probabilities.amax(1, keepdim=True)
            none = none / (none + 1 - far)  # the largest if far > 1/2
            probabilities = torch.cat([probabilities * (1 - none), none], 1)
        columns = [*self.classes, NONE]
        return Prediction([columns[i] for i in probabilities.argmax(-1).tolist()], probabilities)

    def probabilities_of(self, logits: Tensor) -> Tensor:
        """The probabilities of the classes, [n, classes], for `outputs` of the same shape."""
        temperature = 1.0 if self.calibration is None else self.calibration.temperature
        return (logits / temperature).softmax(-1)

    @property
    def can_reject(self) -> bool:
        """Whether `predict` takes ``reject``: distances of known pictures were measured, and no class has that name."""
        return self.means is not None and self.calibration is not None and NONE not in self.classes

    @cached_property
    def calibration(self) -> Calibration | None:
        """The temperature, and the distances of known pictures; None if they were not measured."""
        return read_calibration(self.metadata.get("calibration"))

    def with_calibration(self, calibration: Calibration) -> "Adapted":
        """The same network with another temperature and other distances of known pictures."""
        return replace(self, metadata={**self.metadata, "calibration": calibration._asdict()})

    def _none_of_these(self, x: Tensor, reject: float) -> Tensor:
        if not 0 < reject < 0.5:
            raise ValueError(f"predict: reject = {reject}: must be above 0 and below 0.5, such as 0.05")
        if self.calibration is None or not self.can_reject:
            why = f"a class is named {NONE!r}" if NONE in self.classes else "it has no distances of known pictures"
            raise ValueError(
                f"predict: reject: not possible with this model: {why}; leave it out, or adapt by `fmaml adapt` "
                f"with 20 pictures or more"
            )
        if reject < self.calibration.least_reject:
            raise ValueError(
                f"predict: reject = {reject}: the limit was measured on {self.calibration.pictures} pictures, which "
                f"support {self.calibration.least_reject:.2g} or more; give that, or adapt to {1 / reject:.0f} pictures"
            )
        return self.calibration.none_of_these(self.distances(x), reject)

    @torch.no_grad()
    def distances(self, x: Tensor) -> Tensor:
        """The distance [n] of each example x [n, *inputs] to the nearest class mean, in the space of features."""
        if self.means is None:
            raise ValueError("distances: this network has no class means; adapt again with this version of fmaml")
        parts = [seen_features(self._apply, self.params, part, len(self.classes)) for part in x.split(EXAMPLES_AT_ONCE)]
        return distance_to_nearest(torch.cat(parts), self.means)

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
        return self.learner.features_if_enough(self.kept)

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

    @property
    def shape(self) -> Shape:
        """The shape and type of the network's inputs."""
        return shape_of(self.metadata, self.blueprint, self.params)

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
        found = kept if kept.of_features else self.features_if_enough(kept)
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

    def features_if_enough(self, kept: KeptSupport) -> KeptSupport | None:
        """The features of a support set, if they are enough to adapt; None if batch norm or inner steps need more."""
        apply, params = self.blueprint.build(self.blueprint.outputs).model.apply, network_params(self.theta)
        if self.blueprint.algorithm["name"] not in FITS_HEAD_ALONE or statistics_of(apply, params, kept.support.x[:2]):
            return None
        x = features_of(self.blueprint, params, kept.support.x)
        return kept._replace(support=Batch(x, kept.support.y), of_features=True)

    def for_outputs(self, outputs: int) -> tuple[Network, Theta]:
        """The network with this number of outputs, and theta with a head of that width."""
        network = self.blueprint.build(outputs)
        if outputs == self.blueprint.outputs:
            return network, self.theta
        made_per_task = "head" in self.blueprint.algorithm
        try:
            theta = with_outputs(self.theta, self.blueprint.template(outputs))
            if outputs > self.blueprint.outputs and not made_per_task:
                check_is_network(theta, self.blueprint.params(outputs))
        except ValueError as error:
            raise Error(
                f"{outputs} classes: {self.blueprint.algorithm['name']} was trained for {self.blueprint.outputs}, and "
                f"its learnt parts fit no other number ({error}); take a model of protonet, r2d2, proto_maml or maml"
            ) from None
        if outputs < self.blueprint.outputs or made_per_task:
            return network, theta
        head = head_of(self.blueprint.params(self.blueprint.outputs), self.blueprint.params(outputs))
        algorithm = starting_from_prototypes(network.algorithm, network.model.apply, head)
        return network._replace(algorithm=algorithm), theta

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

    def save(self, path: str | Path) -> None:
        """Write the model as one file, which `fmaml.load` reads."""
        write_model(Path(path), flatten(self.theta), self.metadata)

    @property
    def shape(self) -> Shape:
        """The shape and type of the network's inputs."""
        return shape_of(self.metadata, self.blueprint, self.theta)


def in_a_line(names: list[str]) -> str:
    """The first names, as many as fit, and the number of the others."""
    ends = accumulate(len(name) + 2 for name in names)
    shown = max(1, sum(end <= SHOWN for end in ends))
    more = [f".. {len(names) - shown} more"] if len(names) > shown else []
    return printable(", ".join([name[:SHOWN] for name in names[:shown]] + more), kept="")


def shape_of(metadata: Metadata, blueprint: Blueprint, parameters: Theta) -> Shape:
    """The shape and type of the network's inputs: symbols, or numbers of the parameters' type."""
    dtype = torch.int64 if blueprint.targets == "symbols" else leaves(parameters)[0].dtype
    return Shape(blueprint.inputs, blueprint.form, dtype, metadata.get("white", 0))
