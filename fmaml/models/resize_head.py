"""Resize the head for another number of classes than in training.

Some algorithms make a head of any width for each task. A learnt head has one row for each of the ways of training. For
fewer classes its first rows are used, as if the other classes were absent. For more classes the head starts as the
support set's prototypes, before the inner steps, as in Proto-MAML (Triantafillou et al., arXiv 1903.03096).
"""

from typing import Any, cast

import torch
from torch import Tensor

from ..errors import Error
from ..evaluation import trajectory_of
from ..head import prototypes
from ..losses import Apply
from ..tree import map_leaves
from ..types import Algorithm, Batch, Params, Theta
from .blueprint import Blueprint, Network
from .features import network_params


def network_for_outputs(blueprint: Blueprint, theta: Theta, outputs: int) -> tuple[Network, Theta]:
    """The network with this number of outputs, and theta with a head of that width."""
    network, algorithm = blueprint.build(outputs), blueprint.algorithm
    if outputs == blueprint.outputs:
        return network, theta
    made_per_task = "head" in algorithm
    try:
        theta = with_outputs(theta, blueprint.template(outputs))
        if outputs > blueprint.outputs and not made_per_task:
            check_is_network(theta, blueprint.params(outputs))
    except ValueError as error:
        raise Error(
            f"{outputs} classes: {algorithm['name']} was trained for {blueprint.outputs}, and its learnt parts fit no "
            f"other number ({error}); take a model of protonet, r2d2, proto_maml or maml"
        ) from None
    if outputs < blueprint.outputs or made_per_task:
        return network, theta
    head = head_of(blueprint.params(blueprint.outputs), blueprint.params(outputs))
    start = starting_from_prototypes(network.algorithm, network.model.apply, head)
    return network._replace(algorithm=start), theta


def with_outputs(theta: Theta, template: Theta) -> Theta:
    """theta with the shapes of ``template``: the first rows of resized tensors, extended by the mean of all rows.

    ``template`` is the initial theta of the same network with another number of outputs. Raises ValueError if tensors
    differ in more than the number of rows.
    """

    def resized(saved: Tensor, wanted: Tensor) -> Tensor:
        if saved.shape == wanted.shape:
            return saved
        if saved.ndim != wanted.ndim or saved.shape[1:] != wanted.shape[1:]:
            raise ValueError(f"a tensor {list(saved.shape)} cannot become {list(wanted.shape)}")
        more = max(0, len(wanted) - len(saved))
        mean = saved.mean(0, keepdim=True)
        return torch.cat([saved[: len(wanted)], mean.expand(more, *mean.shape[1:])])

    return map_leaves(resized, theta, template)


def check_is_network(theta: Theta, params: Params) -> None:
    """Raise ValueError unless theta has the parameters of the network, and no others among them."""
    own = network_params(theta)
    others = sorted({*own} - {*params}) if isinstance(own, dict) else ["theta"]
    if others:
        raise ValueError(f"no prototypes for {', '.join(others)}")


def head_of(params: Params, other: Params) -> str:
    """The name of the layer with different widths in the parameters of two networks."""
    (head,) = {name.rpartition(".")[0] for name, value in params.items() if value.shape != other[name].shape}
    return head


def starting_from_prototypes(algorithm: Algorithm[Any], apply: Apply, head: str) -> Algorithm[Any]:
    """The algorithm with the support set's prototypes as ``head`` before the inner steps.

    Its theta has to pass `check_is_network`.
    """

    def start(theta: Theta, support: Batch) -> Theta:
        if f"{head}.weight" in theta:
            return prototypes(apply, theta, support, head, "adapt")
        tree = cast(dict[str, Any], theta)
        return {**tree, "params": prototypes(apply, tree["params"], support, head, "adapt")}

    def trajectory(theta: Theta, support: Batch, *steps: int) -> list[Params]:
        return trajectory_of(algorithm, start(theta, support), support, *steps)

    def adapt(theta: Theta, support: Batch) -> Params:
        return algorithm.adapt(start(theta, support), support)

    return algorithm._replace(adapt=adapt, trajectory=trajectory if algorithm.trajectory else None)
