"""Build the network and the algorithm that a model's metadata name, for a number of outputs.

Metadata may come from anywhere. So names and settings pass the checks of a config, and code outside fmaml is imported
only with the user's consent. Shapes are compared before memory is allocated.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.utils import _pytree as pytree

from ..checkpoints.checkpoint_format import named_leaves
from ..config.build import call_by_name
from ..config.registry import own_code
from ..config.settings import Config
from ..config.validate import validate_sections
from ..data.preprocessing import Form, Scaling, read_scaling
from ..data.ragged import mask_absent_classes
from ..errors import Error
from ..losses import Criterion, cross_entropy, mse, supervised
from ..types import Algorithm, Model, Params, Theta
from .metadata import Targets
from .model_file import Metadata

CRITERIA: dict[Targets, Criterion] = {
    "classes": mask_absent_classes(cross_entropy),
    "values": mse,
    "symbols": cross_entropy,
    "own_loss": mse,  # only to build the network: the loss comes from the source
}


MAX_STEPS = 10_000  # inner steps of an adaptation


class Network(NamedTuple):
    """A network for some number of outputs, and the algorithm that adapts it."""

    model: Model
    algorithm: Algorithm[Any]


@dataclass(frozen=True)
class Blueprint:
    """The part of a model's metadata that builds its network."""

    model: Config
    algorithm: Config
    inputs: tuple[int, ...]
    outputs: int
    targets: Targets
    form: Form | None
    scaling: Scaling | None = None

    def build(self, outputs: int) -> Network:
        """The network with this number of outputs; Error if the settings do not fit, or a tensor is too large."""
        try:
            model: Model = call_by_name("model", self.model, inputs=self.inputs, outputs=outputs)
        except RuntimeError as error:
            raise Error(f"model.name = {self.model['name']}: {error}; give smaller sizes") from None
        loss_fn = supervised(model.apply, CRITERIA[self.targets])
        algorithm = call_by_name("algorithm", self.algorithm, loss_fn=loss_fn, apply=model.apply)
        return Network(model, algorithm)

    def params(self, outputs: int) -> Params:
        """The network's parameters, as shapes without values."""
        with torch.device("meta"):
            return self.build(outputs).model.init(Generator())

    def template(self, outputs: int) -> Theta:
        """The initial theta, as shapes without values."""
        with torch.device("meta"):
            return self.build(outputs).algorithm.init(self.params(outputs))


def check_trust(metadata: Metadata, sections: Iterable[str], name: str, trust: bool) -> None:
    """Error if one of these sections names code outside fmaml, unless the user trusts it."""
    for section in sections:
        if not trust and (target := own_code(metadata["config"], section)):
            raise Error(
                f"{name}: its {section} is {target}, code outside fmaml; "
                f"if you trust it, give --trust, or trust=True in a script"
            )


def read_blueprint(metadata: Metadata, name: str, trust: bool = False) -> Blueprint:
    """The blueprint in a model's metadata; Error, with the ``name`` of the file, if they are wrong.

    Code outside fmaml is imported only with ``trust``, see `check_trust`.
    """
    try:
        config = metadata["config"]
        inputs, outputs, form = metadata["inputs"], metadata["outputs"], metadata["form"]
        check_trust(metadata, ("model", "algorithm"), name, trust)
        valid, problems = validate_sections(config, ("model", "algorithm"))
        sizes = [*inputs, outputs]
        fits = metadata["targets"] in CRITERIA and 1 <= len(inputs) <= 3 and outputs <= 100_000
        if not (fits and all(type(size) is int and 0 < size <= 100_000 for size in sizes)):
            raise ValueError("inputs, outputs or targets")
        if type(metadata["steps"]) is not int or not 0 <= metadata["steps"] <= MAX_STEPS:
            raise ValueError("steps")
        shape = None if form is None else read_form(form, tuple(inputs))
        scaling = read_scaling(metadata.get("scaling"), tuple(inputs))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Error(f"{name}: its metadata are not those of a model ({error})") from None
    if problems:
        problem = problems[0]
        raise Error(f"{name}: its metadata: {problem.key} = {str(problem.value)[:100]}: {problem.message}")
    return Blueprint(valid["model"], valid["algorithm"], tuple(inputs), outputs, metadata["targets"], shape, scaling)


def read_form(form: dict[str, Any], inputs: tuple[int, ...]) -> Form:
    """The form of images with the shape ``inputs``; ValueError if it is not valid."""
    found = Form(**form)
    if found.fit not in ("crop", "squeeze", "pad") or not isinstance(found.invert, bool) or found.ink != "dark":
        raise ValueError("form")
    if inputs != (found.channels, found.size, found.size) or found.channels not in (1, 3):
        raise ValueError("form and inputs differ")
    return found


def fill_theta(template: Theta, tensors: dict[str, Tensor], name: str) -> Theta:
    """The tensors as a tree like ``template``; Error, with the first difference, if names, shapes or types differ."""
    wanted = dict(named_leaves(template))
    for key in sorted(wanted.keys() | tensors.keys()):
        has, needs = tensors.get(key), wanted.get(key)
        if has is None or needs is None:
            raise Error(f"{name}: {key}: {'missing' if has is None else 'not a parameter of its network'}")
        if (has.shape, has.dtype) != (needs.shape, needs.dtype):
            raise Error(
                f"{name}: {key} is {has.dtype} {list(has.shape)}, and its network has {needs.dtype} {list(needs.shape)}"
            )
    leaves = [tensors[key] for key, _ in named_leaves(template)]
    return pytree.tree_unflatten(leaves, pytree.tree_structure(template))
