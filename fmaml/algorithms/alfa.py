"""ALFA (Baik, Choi, Choi, Kim and Lee, arXiv 2011.00209): rates and decay from the state of the inner loop.

Inner step, layer l:     phi_l = beta_l * phi_l - alpha_l * grad_l L(phi, D_i^tr), ``steps`` times
                         (alpha, beta) = g(tau), tau = the means of every layer's gradient and parameters

Here alpha_l = inner_lr * (1 + a_l) and beta_l = 1 + b_l, with (a, b) = g(tau) a network of one hidden layer. It begins
at 0, where this is MAML, so there is no decay at first, and no factor learnt for each step beside g.
"""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

from typing import Any

import torch
from torch import Tensor

from ..head import cosines
from ..inner import select
from ..ranges import Natural, Rate
from ..tree import leaves
from ..types import Algorithm, LossFn, Optimizer, Params
from ..unroll import its_params, unrolled

Theta = dict[str, Any]  # params; hidden, rates and decays: (weight, bias), for L parameter tensors adapted


def alfa(
    loss_fn: LossFn,
    *,
    inner_lr: Rate,
    steps: Natural,
    first_order: bool = False,
    only: tuple[str, ...] = ("*",),
    remat: bool = False,
) -> Algorithm:
    """MAML whose rates and weight decay a small network makes anew in each inner step; plain MAML at first."""

    def init(params: Params) -> Theta:
        layers, like = len(select(params, only)), leaves(params)[0]
        size = 2 * layers
        out = {name: (like.new_zeros(layers, size), like.new_zeros(layers)) for name in ("rates", "decays")}
        return {"params": dict(params), "hidden": (cosines(size, size, like), like.new_zeros(size)), **out}

    def rule_of(theta: Theta) -> Optimizer:
        return generated(theta, inner_lr)

    return unrolled(
        loss_fn, rule_of, steps=steps, init=init, start=its_params, first_order=first_order, only=only, remat=remat
    )


def generated(theta: Theta, inner_lr: float) -> Optimizer:
    """The update above."""

    def update(grads: Params, state: tuple, params: Params) -> tuple[Params, tuple]:
        means: list[Tensor] = [t.mean() for t in (*grads.values(), *params.values())]
        h = torch.relu(affine(theta["hidden"], torch.stack(means)))  # [2 L]
        alphas, betas = inner_lr * (1 + affine(theta["rates"], h)), 1 + affine(theta["decays"], h)  # [L]
        triples = zip(params.items(), alphas, betas, strict=True)
        return {name: b * p - a * grads[name] for (name, p), a, b in triples}, state

    return Optimizer(lambda params: (), update)


def affine(layer: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    weight, bias = layer
    return weight @ x + bias
