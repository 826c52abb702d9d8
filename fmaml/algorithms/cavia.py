"""CAVIA (Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson, arXiv 1810.03642): adapt a context, share the network.

Inner loop:    c_i = 0 - alpha * grad_c L(theta, c, D_i^tr), ``steps`` times
Outer loop:    min over theta of sum_i L(theta, c_i, D_i^ts)

The context enters one layer. In a linear layer it is added to the output, W x + b + M c. In a norm it scales and shifts
each channel (FiLM). Both only change the values of that layer's weight and bias.
"""

import torch
from torch import Tensor

from ..evaluation import trajectory_of
from ..head import cosine_basis
from ..inner import inner_rule
from ..setting_types import Rate, Rule, Size, Steps
from ..types import Algorithm, Batch, InnerRate, LossFn, Params
from ..unroll import unrolled

CONTEXT, SHIFT, SCALE = "context", "context.shift", "context.scale"


def cavia(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | InnerRate,
    steps: Steps,
    context: Size = 5,
    layer: str = "norm3",
    first_order: bool = False,
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm[Params]:
    """Adapt only ``context`` numbers that modulate one ``layer``; they are 0 before each task.

    Args:
        context: the number of context parameters.
        layer: a norm, or a linear layer such as "layer1" of `fmaml.mlp`.
        loss_fn, inner_lr, steps, first_order, inner, remat: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is the parameters and the learnt maps of the context, both [channels, context]:
        "context.shift", and for a norm "context.scale".

    Raises:
        ValueError: from ``init``: the model has no such layer.

    Source: arXiv 1810.03642.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    >>> algorithm = fmaml.cavia(loss_fn, inner_lr=1.0, steps=2, context=4, layer="layer1")
    >>> algorithm.init(model.init(torch.Generator()))["context.shift"].shape
    torch.Size([8, 4])
    """

    def init(params: Params) -> Params:
        bias = params.get(f"{layer}.bias")
        if bias is None:
            raise ValueError(f"cavia: layer = {layer!r}: there is no parameter {layer}.bias; there are {list(params)}")
        maps = {SHIFT: cosine_basis(len(bias), context, bias)}
        if params[f"{layer}.weight"].ndim == 1:
            maps[SCALE] = maps[SHIFT].clone()
        return {**params, **maps}

    def conditioned(theta: Params) -> Params:
        """The network's parameters with the context applied to the layer's weight and bias."""
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

    alpha, only = inner_rule(inner, inner_lr), (CONTEXT,)
    whole = unrolled(
        modulated, alpha, steps=steps, init=init, start=start, first_order=first_order, only=only, remat=remat
    )

    def phis(theta: Params, support: Batch, steps: int = steps) -> list[Params]:
        return [conditioned(phi) for phi in trajectory_of(whole, theta, support, steps)]

    def adapt(theta: Params, support: Batch) -> Params:
        return conditioned(whole.adapt(theta, support))

    return whole._replace(adapt=adapt, trajectory=phis)
