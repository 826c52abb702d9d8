"""CAVIA (Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson, arXiv 1810.03642): adapt a context, share the network.

Inner loop:    c_i = 0 - alpha * grad_c L(theta, c, D_i^tr), ``steps`` times
Outer loop:    min over theta of sum_i L(theta, c_i, D_i^ts)

The context enters one layer: beside the inputs of a linear layer, W x + b + M c; or after a norm (FiLM),
with a scale and a shift for each channel. Both are other values of that layer's own weight and bias.
"""

import torch
from torch import Tensor

from ..head import cosines
from ..inner import trajectory
from ..ranges import Count, Natural, Rate, Rule
from ..types import Algorithm, Batch, LossFn, Optimizer, Params
from ..unroll import stepping, unrolled

CONTEXT, SHIFT, SCALE = "context", "context.shift", "context.scale"


def cavia(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | Optimizer,
    steps: Natural,
    context: Count = 5,
    layer: str = "norm3",
    first_order: bool = False,
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm:
    """Adapt only ``context`` numbers that modulate one ``layer``; they are 0 before each task.

    ``layer`` is a norm, or a linear layer such as "layer1" of `fmaml.mlp`. The learnt maps of the context stand
    beside the parameters in theta, as ``context.shift`` and, for a norm, ``context.scale``, both [channels, context].
    """

    def init(params: Params) -> Params:
        bias = params.get(f"{layer}.bias")
        if bias is None:
            raise ValueError(f"cavia: layer = {layer!r}: there is no parameter {layer}.bias; there are {list(params)}")
        maps = {SHIFT: cosines(len(bias), context, bias)}
        return {**params, **maps, **({SCALE: maps[SHIFT].clone()} if params[f"{layer}.weight"].ndim == 1 else {})}

    def conditioned(theta: Params) -> Params:
        """The plain parameters of the network that sees this context."""
        params = {name: p for name, p in theta.items() if name not in (CONTEXT, SHIFT, SCALE)}
        c, weight, bias = theta[CONTEXT], params[f"{layer}.weight"], params[f"{layer}.bias"]
        scale = 1 + theta[SCALE] @ c if SCALE in theta else torch.ones_like(bias)
        if weight.ndim == 1:
            params[f"{layer}.weight"] = scale * weight
        return {**params, f"{layer}.bias": scale * bias + theta[SHIFT] @ c}

    def modulated(params: Params, batch: Batch) -> Tensor:
        return loss_fn(conditioned(params), batch)

    def start(theta: Params, support: Batch) -> Params:
        return {**theta, CONTEXT: theta[SHIFT].new_zeros(context)}

    step, order = stepping(inner, inner_lr), {"first_order": first_order, "only": (CONTEXT,)}
    walk = unrolled(modulated, lambda theta: step, steps=steps, init=init, start=start, remat=remat, **order)

    def phis(theta: Params, support: Batch, steps: int = steps) -> list[Params]:
        walked = trajectory(modulated, start(theta, support), support, step, steps=steps, **order)
        return [conditioned(phi) for phi in walked]

    def adapt(theta: Params, support: Batch) -> Params:
        return conditioned(walk.adapt(theta, support))

    return walk._replace(adapt=adapt, trajectory=phis)
