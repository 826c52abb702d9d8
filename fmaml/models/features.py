"""Features of a trained network: the inputs of its head."""

from typing import Any, cast

import torch
from torch import Tensor

from ..head import features
from ..losses import Apply
from ..types import Params, Theta
from .blueprint import Blueprint

EXAMPLES_AT_ONCE = 256


def network_params(theta: Theta) -> Params:
    """The parameters of the network in the theta of any algorithm."""
    return cast(Any, theta).get("params", theta)


def head_of_network(blueprint: Blueprint, params: Params) -> str:
    """The name of the network's last linear layer; ValueError if it has none of that name."""
    head = blueprint.algorithm.get("head", "head")
    if f"{head}.weight" not in params:
        raise ValueError(
            f"features: model.name = {blueprint.model['name']} has no linear layer {head}; name its last layer {head}"
        )
    return head


@torch.no_grad()
def head_inputs(blueprint: Blueprint, apply: Apply, params: Params, x: Tensor) -> Tensor:
    """The features [n, width] of examples [n, *inputs], in the units of their file."""
    head = head_of_network(blueprint, params)

    def of(params: Params, x: Tensor) -> Tensor:
        return features(apply, params, x, head)

    in_units = of if blueprint.scaling is None else blueprint.scaling.before(of)
    return torch.cat([in_units(params, part) for part in x.split(EXAMPLES_AT_ONCE)])
