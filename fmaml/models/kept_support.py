"""The support set of an adapted network, kept to add classes and examples to it later.

Prototypes and ridge regression fit only the head, to the features of the examples. If each feature depends on its own
example alone, the features suffice, and a file always keeps them: they are small. Batch norm over the support set mixes
them, and inner steps need the examples themselves. Then a file keeps the support set on request.
"""

from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..checkpoints.checkpoint_format import flatten, named_leaves
from ..config.build import call_by_name
from ..errors import Error
from ..head import features, head_weight
from ..losses import supervised
from ..torch_fixes.support_statistics import statistics_of
from ..types import Algorithm, Batch, Params, Theta
from .blueprint import CRITERIA, MAX_STEPS, Blueprint, fill_theta
from .features import EXAMPLES_AT_ONCE, network_params
from .model_file import Metadata

FITS_HEAD_ALONE = ("protonet", "pretrain", "r2d2")  # algorithms that need nothing but the features


class KeptSupport(NamedTuple):
    """The examples of an adapted network, and theta, from which it was adapted."""

    theta: Theta
    support: Batch  # x [n, *inputs] or features [n, features], in the network's units; y [n, *target]
    of_features: bool
    steps: int | None  # inner steps; None: the model's own

    def counts(self, classes: list[str]) -> dict[str, int]:
        """The number of examples of each class."""
        found = Counter(self.support.y.tolist()) if classes else {}
        return {name: found[i] for i, name in enumerate(classes)}

    def by_class(self, classes: list[str]) -> dict[str, Tensor]:
        """The examples of each class."""
        return {name: self.support.x[self.support.y == i] for i, name in enumerate(classes)}

    def joined(self, classes: list[str], more: Batch, names: list[str]) -> tuple["KeptSupport", list[str]]:
        """The kept and more examples, sorted by class, and the classes of both; ``names`` are those of ``more``.

        The classes are sorted, as in `Learner.adapt`, unless they are numbers beyond "9".
        """
        every = [*classes, *(name for name in names if name not in classes)]
        if classes == sorted(classes) and names == sorted(names):
            every.sort()
        x, y = torch.cat([self.support.x, more.x]), torch.cat([self.support.y, more.y])
        if every:
            y = torch.cat([numbered(self.support.y, classes, every), numbered(more.y, names, every)])
            order = y.argsort(stable=True)
            x, y = x[order], y[order]
        return self._replace(support=Batch(x, y)), every


def seen_before(x: Tensor, known: Tensor) -> int:
    """The number of rows of x that ``known`` has too, up to rounding."""
    x, known = x.flatten(1).double(), known.flatten(1).double()
    distance = torch.cdist(x, known, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    return int((distance <= 1e-5 * x.norm(dim=1)).sum())


def numbered(y: Tensor, names: list[str], every: list[str]) -> Tensor:
    """Class numbers in the list ``names`` as numbers in the list ``every``."""
    return torch.tensor([every.index(name) for name in names])[y]


def features_if_enough(blueprint: Blueprint, kept: KeptSupport) -> KeptSupport | None:
    """The features of a support set, if they are enough to adapt; None if batch norm or inner steps need more."""
    apply, params = blueprint.build(blueprint.outputs).model.apply, network_params(kept.theta)
    if blueprint.algorithm["name"] not in FITS_HEAD_ALONE or statistics_of(apply, params, kept.support.x[:2]):
        return None
    x = features_of(blueprint, params, kept.support.x)
    return kept._replace(support=Batch(x, kept.support.y), of_features=True)


@torch.no_grad()
def features_of(blueprint: Blueprint, params: Params, x: Tensor) -> Tensor:
    """The features [n, features] of x, for a network without batch norm over the support set."""
    head = blueprint.algorithm["head"]
    apply = blueprint.build(len(head_weight(params, head))).model.apply
    return torch.cat([features(apply, params, part, head) for part in x.split(EXAMPLES_AT_ONCE)])


def algorithm_of_features(blueprint: Blueprint) -> Algorithm[Any]:
    """The algorithm for a support set of features: its forward pass is the head alone."""
    apply = partial(apply_head, blueprint.algorithm["head"])
    loss_fn = supervised(apply, CRITERIA[blueprint.targets])
    return call_by_name("algorithm", blueprint.algorithm, loss_fn=loss_fn, apply=apply)


def apply_head(head: str, params: Params, x: Tensor) -> Tensor:
    """The outputs of the layer ``head`` for features x [n, features]."""
    return linear(x, params[f"{head}.weight"], params[f"{head}.bias"])


def why_not_kept(blueprint: Blueprint) -> str:
    """The reason why nothing can be added to a file without its support set, and the cure."""
    name = blueprint.algorithm["name"]
    learner = f"{name} with batch norm" if name in FITS_HEAD_ALONE else name
    return (
        f"it keeps none of its examples, and {learner} needs them to learn more; adapt again to all examples together, "
        f"with --keep-support to add more later (in Python: save(path, keep_support=True))"
    )


def to_tensors(kept: KeptSupport, params: Params) -> dict[str, Tensor]:
    """The tensors of a file, without those parameters of theta that the adapted network has unchanged."""
    theta = flatten(kept.theta, "kept/theta/")
    changed = {name: leaf for name, leaf in theta.items() if not is_same(leaf, params.get(last_part(name)))}
    return {**changed, "kept/x": to_pixels(kept.support.x).contiguous(), "kept/y": kept.support.y.contiguous()}


def read_kept(
    metadata: Metadata, blueprint: Blueprint, tensors: dict[str, Tensor], params: Params, name: str
) -> KeptSupport | None:
    """The inverse of `to_tensors`; None if the file ``name`` keeps none. Raises Error if a tensor does not fit."""
    facts = metadata.get("kept")
    if facts is None:
        return None
    template = blueprint.template(blueprint.outputs)
    found = {key.removeprefix("kept/theta/"): leaf for key, leaf in tensors.items() if key.startswith("kept/theta/")}
    for key, _ in named_leaves(template):
        if key not in found and last_part(key) in params:
            found[key] = params[last_part(key)]
    theta = fill_theta(template, found, name)
    try:
        kept = KeptSupport(theta, Batch(from_pixels(tensors["kept/x"]), tensors["kept/y"]), **facts)
        check_kept(kept, blueprint, len(metadata["classes"]))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise Error(f"{name}: its support set does not fit its network ({error})") from None
    return kept


def check_kept(kept: KeptSupport, blueprint: Blueprint, classes: int) -> None:
    """Raise ValueError unless the examples fit the network, and their targets its outputs."""
    x, y = kept.support
    inputs = blueprint.inputs
    if kept.of_features:
        inputs = blueprint.params(blueprint.outputs)[f"{blueprint.algorithm['head']}.weight"].shape[1:]
    if tuple(x.shape[1:]) != tuple(inputs) or not len(x) == len(y) > 0:
        raise ValueError(f"x {list(x.shape)} and y {list(y.shape)}")
    if classes and (y.dtype != torch.int64 or y.unique().tolist() != list(range(classes))):
        raise ValueError("class numbers")
    if kept.steps is not None and not (type(kept.steps) is int and 0 <= kept.steps <= MAX_STEPS):
        raise ValueError("steps")


def last_part(name: str) -> str:
    """The parameter's own name in the name of a leaf of theta, such as "head.weight" of "params/head.weight"."""
    return name.rpartition("/")[2]


def is_same(leaf: Tensor, other: Tensor | None) -> bool:
    """Whether two tensors have the same type, shape and values."""
    return other is not None and leaf.dtype == other.dtype and torch.equal(leaf, other.cpu())


def to_pixels(x: Tensor) -> Tensor:
    """Images of pictures as uint8, which a file holds in a quarter of the space; other x unchanged."""
    pixels = (x * 255).round().clamp(0, 255).byte() if x.dtype == torch.float32 else x
    return pixels if is_same(from_pixels(pixels), x) else x


def from_pixels(x: Tensor) -> Tensor:
    """The inverse of `to_pixels`."""
    return x.float() * (1 / 255) if x.dtype == torch.uint8 else x
