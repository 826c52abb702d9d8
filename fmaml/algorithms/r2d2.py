"""R2-D2 (Bertinetto, Henriques, Torr and Vedaldi, arXiv 1805.08136): a head in closed form.

Ridge regression:                W = argmin |X W - Y|^2 + lambda |W|^2, X the support features, Y the targets
the same by Woodbury, n x n:     W = X' (X X' + lambda I)^-1 Y
a query's scores, for labels:    a x' W + b, with a, b and lambda learnt

For labels Y has a column for each class, 1 where the example is of it. For regression a = 1 and b = 0.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..head import features, labels, outputs_of, with_head
from ..losses import Apply
from ..outer import query_loss
from ..ranges import Rate
from ..types import Algorithm, Batch, LossFn, Params

Theta = dict[str, Any]  # params; log_ridge, scale, shift: scalars


def r2d2(loss_fn: LossFn, apply: Apply, *, ridge: Rate = 1.0, scale: Rate = 10.0, head: str = "head") -> Algorithm:
    """Fit the head to the support set by ridge regression, and learn the features through the solution.

    ``ridge`` and ``scale`` are where lambda and a begin.
    """

    def init(params: Params) -> Theta:
        weight = outputs_of(params, head)
        begin = {"log_ridge": torch.log(weight.new_tensor(ridge)), "scale": weight.new_tensor(scale)}
        return {"params": dict(params), **begin, "shift": weight.new_tensor(0.0)}

    def adapt(theta: Theta, support: Batch) -> Params:
        params = theta["params"]
        x = features(apply, params, support.x, head)  # [n, features]
        if support.y.is_floating_point():
            w = solve(x, support.y, theta["log_ridge"].exp())
            return with_head(params, w.T, w.new_zeros(w.shape[1]), head)
        y = labels(support, params, head, "r2d2")  # [n, ways]
        w = solve(x * y.sum(1, keepdim=True), y, theta["log_ridge"].exp())  # a filler's features do not count
        return with_head(params, theta["scale"] * w.T, theta["shift"].expand(w.shape[1]), head)

    return Algorithm(init, adapt, partial(query_loss, loss_fn, adapt))


def solve(x: Tensor, y: Tensor, ridge: Tensor) -> Tensor:
    """W [features, outputs], by Woodbury; x [n, features], y [n, outputs]."""
    return x.T @ torch.linalg.solve(x @ x.T + ridge * torch.eye(len(x), dtype=x.dtype, device=x.device), y)
