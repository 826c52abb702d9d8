"""A network for forecasts, and an algorithm that fits its last layer to a series around a learnt one.

With features F of the support windows and learnt W_0 and lambda:

    W = argmin |F W - Y|^2 + lambda |W - W_0|^2 = W_0 + F' (F F' + lambda I)^-1 (Y - F W_0)

This is R2-D2 (arXiv 1805.08136) with the penalty of Denevi et al., "Learning to learn around a common mean" (NeurIPS
2018). R2-D2 shrinks to W = 0, which is the naive forecast here. This one shrinks to the pooled network.
"""

from functools import partial
from typing import TypedDict

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

import fmaml
from fmaml.algorithms.r2d2 import ridge_regression
from fmaml.head import features, with_head
from fmaml.losses import Apply
from fmaml.outer import query_loss
from fmaml.setting_types import Rate, Widths
from fmaml.types import LossFn


def forecaster(*, inputs: tuple[int, ...], outputs: int, hidden: Widths = (64, 64)) -> fmaml.Model:
    """[n, inputs] -> [n, outputs]: a linear layer `head` of the inputs, a one and a perceptron's features.

    The head starts at 0, so an untrained network gives the naive forecast.
    """
    body = fmaml.mlp(inputs=inputs, outputs=hidden[-1], hidden=hidden[:-1], activation="tanh")
    width = inputs[0] + 1 + hidden[-1]

    def init(generator: Generator) -> fmaml.Params:
        head = {"head.weight": torch.zeros(outputs, width), "head.bias": torch.zeros(outputs)}
        return {**body.init(generator), **head}

    def apply(params: fmaml.Params, x: Tensor) -> Tensor:
        layers = {name: p for name, p in params.items() if not name.startswith("head")}
        found = torch.cat([x, torch.ones_like(x[:, :1]), body.apply(layers, x).tanh()], 1)
        return F.linear(found, params["head.weight"], params["head.bias"])

    return fmaml.Model(init, apply)


class AroundTheta(TypedDict):
    params: fmaml.Params
    log_ridge: Tensor  # log lambda, a scalar


def around(loss_fn: LossFn, apply: Apply, *, ridge: Rate = 100.0, head: str = "head") -> fmaml.Algorithm[AroundTheta]:
    """Fit the head to the support set by ridge regression around the learnt head; ``ridge`` is the initial lambda."""

    def init(params: fmaml.Params) -> AroundTheta:
        return {"params": dict(params), "log_ridge": params[f"{head}.weight"].new_full((), ridge).log()}

    def adapt(theta: AroundTheta, support: fmaml.Batch) -> fmaml.Params:
        params = theta["params"]
        found = features(apply, params, support.x, head)  # [n, features]
        rest = support.y - apply(params, support.x)  # [n, outputs]
        w = ridge_regression(found, rest, theta["log_ridge"].exp())  # [features, outputs]
        return with_head(params, params[f"{head}.weight"] + w.T, params[f"{head}.bias"], head)

    return fmaml.Algorithm(init, adapt, partial(query_loss, loss_fn, adapt))
