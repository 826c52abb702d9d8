"""A network for forecasts, and an algorithm that fits its last layer to a series around a learnt one.

With features F of the support windows, scaled by learnt S, and a learnt W_0:

    W = argmin |F W - Y|^2 + |S^-1 (W - W_0)|^2 = W_0 + S^2 F' (F S^2 F' + I)^-1 (Y - F W_0)

This is R2-D2 (arXiv 1805.08136) with the penalty of Denevi et al., "Learning to learn around a common mean" (NeurIPS
2018). R2-D2 shrinks to W = 0, which is the naive forecast here. This one shrinks to the pooled network. At S = 0 a
feature is not adapted.
"""

from typing import TypedDict

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

import fmaml
from fmaml.head import features, ridge_regression, with_head
from fmaml.losses import Apply
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
    freedom: Tensor  # [features]


def around(loss_fn: LossFn, apply: Apply, *, freedom: Rate = 0.03, head: str = "head") -> fmaml.Algorithm[AroundTheta]:
    """Fit the head to the support set by ridge regression around the learnt head; ``freedom`` is the initial S.

    Half of the loss is the pooled network's, without adaptation, on the whole task. So after 0 inner steps the network
    is a pooled forecast, and after 1 the adapted one.
    """

    def init(params: fmaml.Params) -> AroundTheta:
        weight = params[f"{head}.weight"]
        return {"params": dict(params), "freedom": weight.new_full(weight.shape[1:], freedom)}

    def adapt(theta: AroundTheta, support: fmaml.Batch) -> fmaml.Params:
        params, s = theta["params"], theta["freedom"]
        found = features(apply, params, support.x, head)  # [n, features]
        rest = support.y - apply(params, support.x)  # [n, outputs]
        w = ridge_regression(found * s, rest, s.new_ones(()))  # [features, outputs]
        return with_head(params, params[f"{head}.weight"] + (s[:, None] * w).T, params[f"{head}.bias"], head)

    def loss(theta: AroundTheta, task: fmaml.Task) -> tuple[Tensor, fmaml.types.Metrics]:
        query = loss_fn(adapt(theta, task.support), task.query)
        pooled = (loss_fn(theta["params"], task.support) + loss_fn(theta["params"], task.query)) / 2
        return (query + pooled) / 2, {"query_loss": query}

    def trajectory(theta: AroundTheta, support: fmaml.Batch, steps: int | None = None) -> list[fmaml.Params]:
        return [theta["params"]] + [adapt(theta, support)] * (1 if steps is None else steps)

    return fmaml.Algorithm(init, adapt, loss, trajectory)
