"""A head for a number of classes that was not trained for.

Some algorithms make the head for each task, of any width. One that was learnt has a row for each of the ways of
training: fewer classes take the first rows, as if the other classes were absent; for more it is made of the support
set's prototypes, from which the inner steps go on, as in Proto-MAML (Triantafillou et al., arXiv 1903.03096).
"""

from typing import Any, cast

import torch
from torch import Tensor

from ..evaluation import trajectory_of
from ..head import prototypes
from ..losses import Apply
from ..tree import map_leaves
from ..types import Algorithm, Batch, Params, Theta


def with_outputs(theta: Theta, template: Theta) -> Theta:
    """theta with what depends on the number of outputs as wide as in ``template``: its first rows, or also their mean.

    ``template`` is the initial theta of the same network with other outputs. Raises ValueError where a tensor is more
    than a row for each output.
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


def head_of(params: Params, other: Params) -> str:
    """The name of the layer whose width differs between the parameters of two networks."""
    (head,) = {name.rpartition(".")[0] for name, value in params.items() if value.shape != other[name].shape}
    return head


def starting_from_prototypes(algorithm: Algorithm[Any], apply: Apply, head: str) -> Algorithm[Any]:
    """``algorithm`` with the layer ``head`` made of the support set's prototypes before the inner steps.

    Raises ValueError, on use, if its theta does not hold the network's parameters by themselves.
    """

    def start(theta: Theta, support: Batch) -> Theta:
        if f"{head}.weight" in theta:
            return prototypes(apply, theta, support, head, "adapt")
        if isinstance(theta, dict) and "params" in theta:
            tree = cast(dict[str, Any], theta)
            return {**tree, "params": prototypes(apply, tree["params"], support, head, "adapt")}
        raise ValueError("its theta does not hold the network's parameters by themselves")

    def trajectory(theta: Theta, support: Batch, *steps: int) -> list[Params]:
        return trajectory_of(algorithm, start(theta, support), support, *steps)

    def adapt(theta: Theta, support: Batch) -> Params:
        return algorithm.adapt(start(theta, support), support)

    return algorithm._replace(adapt=adapt, trajectory=trajectory if algorithm.trajectory else None)
