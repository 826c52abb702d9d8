"""Make a standalone module of an adapted network, or of a learner's features, for export.

Parameters and the batch norm statistics of the support set are constants in it. The metadata, JSON by key, describe how
to convert an image to an input.
"""

import json
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Generator, Tensor, nn

from ..data.preprocessing import in_own_units
from ..errors import Error
from ..head import features
from ..losses import Apply
from ..models.blueprint import Blueprint
from ..models.features import network_params
from ..models.learner import Adapted, Learner
from ..models.model_file import Metadata
from ..torch_fixes.support_statistics import statistics_of, with_statistics
from ..types import Params

Outputs: TypeAlias = dict[str, Tensor]


class Standalone(nn.Module):
    """A network with its parameters: x [n, *inputs] -> outputs by name.

    Outputs are logits and probabilities [n, ..., classes] of classes or symbols, values [n, outputs], or features
    [n, features].
    """

    def __init__(self, apply: Apply, params: Params, gives: Literal["probabilities", "values", "features"]) -> None:
        super().__init__()
        self._apply_network, self._gives = apply, gives
        self._names = {name: name.replace(".", "_") for name in params}
        for name, value in params.items():
            self.register_buffer(self._names[name], value)

    def forward(self, x: Tensor) -> Outputs:
        return self.named(self._apply_network({name: getattr(self, own) for name, own in self._names.items()}, x))

    def named(self, output: Tensor) -> Outputs:
        """Name the network's output, and add probabilities if it is logits."""
        if self._gives != "probabilities":
            return {self._gives: output}
        return {"logits": output, "probabilities": output.softmax(-1)}


class Exportable(NamedTuple):
    """A network to export, and its description."""

    network: Standalone
    blueprint: Blueprint
    metadata: dict[str, str]  # key -> JSON


def adapted_network(adapted: Adapted) -> Exportable:
    """Make an adapted network exportable. Its outputs are those of `Adapted.outputs`."""
    model = adapted.blueprint.build(len(adapted.classes) or adapted.blueprint.outputs).model
    gives = "values" if adapted.blueprint.targets == "values" else "probabilities"
    apply = in_own_units(with_statistics(model.apply, adapted.statistics), adapted.blueprint.scaling)
    network = Standalone(apply, adapted.params, gives)
    return Exportable(network, adapted.blueprint, describe_export(adapted.metadata, adapted.blueprint, adapted.classes))


def feature_extractor(learner: Learner) -> Exportable:
    """Make a learner's feature extractor exportable: the inputs of its head, before adaptation.

    Raises Error if its algorithm computes no head from features, or if batch norm makes them depend on a support set.
    """
    blueprint, head = learner.blueprint, learner.blueprint.algorithm.get("head")
    name = blueprint.algorithm["name"]
    if head is None:
        raise Error(f"{name}: adapts the whole network, so it has no fixed features; give --support")
    apply = blueprint.build(blueprint.outputs).model.apply
    params = network_params(learner.theta)
    if statistics_of(apply, params, example(blueprint, 2)):
        raise Error(f"{name}: this network's batch norm needs the statistics of a support set; give --support")

    def features_of(params: Params, x: Tensor) -> Tensor:
        return features(apply, params, x, head)

    in_units = features_of if blueprint.scaling is None else blueprint.scaling.before(features_of)
    network = Standalone(in_units, params, "features")
    return Exportable(network, blueprint, describe_export(learner.metadata, blueprint, []))


def describe_export(metadata: Metadata, blueprint: Blueprint, classes: list[str]) -> dict[str, str]:
    """The metadata of an export: classes in the order of the outputs, preprocessing, and the model."""
    about = {key: metadata.get(key) for key in ("name", "task", "protocol", "data", "digest")}
    found = {
        "classes": classes,
        "preprocessing": preprocessing(blueprint),
        "model": {**about, "network": blueprint.model, "algorithm": blueprint.algorithm},
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in found.items()}


def preprocessing(blueprint: Blueprint) -> dict[str, Any]:
    """How to convert an example to a row of x. For images, the keys are those of `fmaml.data.preprocessing.Form`.

    ``range`` is that of the values of x. Pixels are divided by 255 after ``invert``.
    """
    if blueprint.targets == "symbols":
        return {"inputs": blueprint.inputs, "dtype": "int64", "range": [0, blueprint.outputs - 1]}
    of_images = {} if blueprint.form is None else {**blueprint.form.of_model(), "range": [0, 1]}
    return {"inputs": blueprint.inputs, "dtype": "float32", **of_images}


def example(blueprint: Blueprint, n: int) -> Tensor:
    """Random inputs [n, *inputs], the same in each call."""
    generator, shape = Generator().manual_seed(n), (n, *blueprint.inputs)
    if blueprint.targets == "symbols":
        return torch.randint(blueprint.outputs, shape, generator=generator)
    draw = torch.randn if blueprint.form is None else torch.rand
    x = draw(shape, generator=generator)
    return x if blueprint.scaling is None else blueprint.scaling.units(x)
