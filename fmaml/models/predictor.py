"""Predictions of a network adapted to one task.

A prediction is inductive: it depends only on the support set and on that example. Batch norm uses the statistics of the
support set, which are stored with the network.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from ..calibration import NONE, Calibration, distance_to_nearest, read_calibration, seen_features
from ..data.preprocessing import Ink, in_own_units
from ..files.plain_text import counted, printable
from ..torch_fixes.support_statistics import Statistics, with_statistics
from ..tree import leaves
from ..types import Params, Theta
from .blueprint import Blueprint
from .features import EXAMPLES_AT_ONCE, head_inputs
from .model_file import Metadata
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
class Predictor:
    """An adapted network without its support set. An output depends on its own example alone.

    ``classes`` are the names of the classes, sorted; empty where the targets are values or symbols.
    """

    metadata: Metadata
    blueprint: Blueprint
    classes: list[str]
    params: Params
    statistics: list[Statistics]
    means: Tensor | None = None  # of each class's features, [classes, features], to refuse pictures far from all

    def __repr__(self) -> str:
        """One line, without the tensors."""
        name = printable(str(self.metadata.get("name")), kept="")
        if not self.classes:
            return f"{type(self).__name__}({name}, {counted(self.blueprint.outputs, 'output')})"
        return f"{type(self).__name__}({name}, {len(self.classes)} classes: {in_a_line(self.classes)})"

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

    def with_calibration(self, calibration: Calibration) -> Self:
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
        return distance_to_nearest(torch.cat(parts), self.means, directions=self.by_directions)

    @property
    def by_directions(self) -> bool:
        """Whether distances are those of features of length 1: of images, unless measured by an earlier version."""
        return self.blueprint.form is not None if self.calibration is None else self.calibration.directions

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
