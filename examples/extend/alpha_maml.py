"""MAML with one inner rate, learnt together with theta.

phi_i = theta - exp(a) * grad L(theta, D_i^tr), ``steps`` times
min over theta and a of sum_i L(phi_i, D_i^ts)
"""

from collections.abc import Sequence
from math import log
from typing import TypedDict

from torch import Tensor

import fmaml
from fmaml.setting_types import Rate, Steps
from fmaml.types import LossFn


class AlphaTheta(TypedDict):
    params: fmaml.Params
    log_rate: Tensor  # scalar: a


def alpha_maml(
    loss_fn: LossFn, *, inner_lr: Rate, steps: Steps, only: Sequence[str] = ("*",)
) -> fmaml.Algorithm[AlphaTheta]:
    """MAML with one learnt inner rate, which begins at ``inner_lr``."""

    def init(params: fmaml.Params) -> AlphaTheta:
        any_param = next(iter(params.values()))
        return {"params": dict(params), "log_rate": any_param.new_tensor(log(inner_lr))}

    def start(theta: AlphaTheta, support: fmaml.Batch) -> fmaml.Params:
        return theta["params"]

    def rate(theta: AlphaTheta) -> Tensor:
        return theta["log_rate"].exp()

    return fmaml.unrolled(loss_fn, rate, steps=steps, init=init, start=start, only=only)
