"""ALFA (Baik, Choi, Choi, Kim and Lee, arXiv 2011.00209): rates and decay from the state of the inner loop.

Inner step, layer l:     phi_l = beta_l * phi_l - alpha_l * grad_l L(phi, D_i^tr), ``steps`` times
                         (alpha, beta) = g(tau), tau = the means of every layer's gradient and parameters

Here alpha_l = inner_lr * (1 + a_l) and beta_l = 1 + b_l, with (a, b) = g(tau) a network of one hidden layer. It begins
at 0, where this is MAML, so there is no decay at first, and no factor learnt for each step beside g.
"""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

from typing import TypeAlias, TypedDict

import torch
from torch import Tensor

from ..head import cosines
from ..inner import select
from ..optim import no_state
from ..ranges import Rate, Steps
from ..tree import leaves
from ..types import Algorithm, LossFn, Optimizer, Params
from ..unroll import its_params, unrolled

Affine: TypeAlias = tuple[Tensor, Tensor]  # weight, bias


class AlfaTheta(TypedDict):
    """For L parameter tensors that are adapted."""

    params: Params
    hidden: Affine  # [2 L, 2 L], [2 L]
    rates: Affine  # [L, 2 L], [L]
    decays: Affine  # [L, 2 L], [L]


def alfa(
    loss_fn: LossFn,
    *,
    inner_lr: Rate,
    steps: Steps,
    first_order: bool = False,
    only: tuple[str, ...] = ("*",),
    remat: bool = False,
) -> Algorithm[AlfaTheta]:
    """MAML whose rates and weight decay a small network makes anew in each inner step; plain MAML at first.

    Args:
        inner_lr: the rate at first, a number above 0.
        loss_fn, steps, first_order, only, remat: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta holds "params" and the layers of the network, "hidden", "rates" and "decays".

    Source: arXiv 2011.00209.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    >>> algorithm = fmaml.alfa(loss_fn, inner_lr=0.1, steps=5)
    >>> theta = algorithm.init(model.init(torch.Generator()))
    >>> theta["rates"][0].shape  # for 4 parameter tensors
    torch.Size([4, 8])
    """

    def init(params: Params) -> AlfaTheta:
        layers, like = len(select(params, only)), leaves(params)[0]
        size = 2 * layers

        def zero() -> Affine:
            return like.new_zeros(layers, size), like.new_zeros(layers)

        hidden = cosines(size, size, like), like.new_zeros(size)
        return {"params": dict(params), "hidden": hidden, "rates": zero(), "decays": zero()}

    def rule_of(theta: AlfaTheta) -> Optimizer:
        return generated(theta, inner_lr)

    return unrolled(
        loss_fn, rule_of, steps=steps, init=init, start=its_params, first_order=first_order, only=only, remat=remat
    )


def generated(theta: AlfaTheta, inner_lr: float) -> Optimizer:
    """The update above."""

    def update(grads: Params, state: tuple[()], params: Params) -> tuple[Params, tuple[()]]:
        means: list[Tensor] = [t.mean() for t in (*grads.values(), *params.values())]
        h = torch.relu(affine(theta["hidden"], torch.stack(means)))  # [2 L]
        alphas, betas = inner_lr * (1 + affine(theta["rates"], h)), 1 + affine(theta["decays"], h)  # [L]
        triples = zip(params.items(), alphas, betas, strict=True)
        return {name: b * p - a * grads[name] for (name, p), a, b in triples}, state

    return Optimizer(no_state, update)


def affine(layer: Affine, x: Tensor) -> Tensor:
    weight, bias = layer
    return weight @ x + bias
