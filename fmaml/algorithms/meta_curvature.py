"""Meta-Curvature (Park and Oliva, arXiv 1902.03356): a learnt linear map of each inner gradient.

The map:      MC(G) = G x_1 M_o x_2 M_i x_3 M_f for a gradient [outputs, inputs, positions of the filter]
Inner step:   phi_i = theta - alpha * MC(grad L(theta, D_i^tr)), ``steps`` times
"""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

from ..inner import as_optimizer, inner_rule
from ..optim.transforms import chain, no_state
from ..setting_types import Rate, Rule, Steps
from ..types import Algorithm, InnerRate, LossFn, Optimizer, Params, Transform
from ..unroll import params_of, unrolled


class MetaCurvatureTheta(TypedDict):
    """The parameters and the maps of their gradients."""

    params: Params
    maps: dict[str, list[Tensor]]  # name -> one matrix for each axis


def meta_curvature(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | InnerRate,
    steps: Steps,
    first_order: bool = False,
    only: Sequence[str] = ("*",),
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm[MetaCurvatureTheta]:
    """MAML with a learnt matrix for each axis of each parameter's gradient, initially the identity.

    Args:
        loss_fn, inner_lr, steps, first_order, only, inner, remat: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is {"params": .., "maps": name -> a square matrix for each axis}.

    Source: arXiv 1902.03356.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    >>> algorithm = fmaml.meta_curvature(loss_fn, inner_lr=0.1, steps=1)
    >>> [matrix.shape for matrix in algorithm.init(model.init(torch.Generator()))["maps"]["layer1.weight"]]
    [torch.Size([8, 8]), torch.Size([1, 1])]
    """

    def init(params: Params) -> MetaCurvatureTheta:
        maps = {name: [torch.eye(n, dtype=p.dtype, device=p.device) for n in axes(p)] for name, p in params.items()}
        return {"params": dict(params), "maps": maps}

    step = as_optimizer(inner_rule(inner, inner_lr))

    def rule(theta: MetaCurvatureTheta) -> Optimizer:
        return chain(mapped(theta["maps"]), step)

    return unrolled(
        loss_fn, rule, steps=steps, init=init, start=params_of, first_order=first_order, only=only, remat=remat
    )


def axes(p: Tensor) -> tuple[int, ...]:
    """The lengths [outputs, inputs, positions] of a tensor's axes; all axes after the second count as one."""
    return tuple(p.shape) if p.ndim <= 2 else tuple(p.flatten(2).shape)


def mapped(maps: dict[str, list[Tensor]]) -> Transform:
    """The transform that multiplies each axis of each gradient by its matrix."""

    def transformed(name: str, g: Tensor) -> Tensor:
        h = g.reshape(axes(g))
        for axis, matrix in enumerate(maps[name]):
            h = (matrix @ h.movedim(axis, -2)).movedim(-2, axis) if h.ndim > 1 else matrix @ h
        return h.reshape(g.shape)

    def update(grads: Params, state: tuple[()], params: Params) -> tuple[Params, tuple[()]]:
        return {name: transformed(name, g) for name, g in grads.items()}, state

    return Transform(no_state, update)
