"""A learnt preconditioner, after WarpGrad (Flennerhag et al., arXiv 1909.00025).

The inner step:       phi' = phi - alpha * P grad L(phi, D_i^tr), P = W W' on the outputs of each layer
The loss for W:       mean over k of L(stop(phi_k) - alpha * P stop(grad L(phi_k, D_i^tr)), D_i^ts)
The loss for theta:   1/2 |theta - stop(phi_K)|^2, as in Reptile

W is learnt at every point phi_k of the trajectory, through one inner step only.
"""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

from ..inner import adapt as adapt_by
from ..inner import as_optimizer, trajectory
from ..optim.transforms import chain, no_state
from ..setting_types import PositiveSteps, Rate
from ..torch_fixes.grad_levels import detach_result, detach_theta, with_gradient
from ..tree import map_leaves, squared_norm
from ..types import Algorithm, Batch, LossFn, Metrics, Optimizer, Params, Task, Transform


class WarpGradTheta(TypedDict):
    """The parameters and the preconditioners."""

    params: Params
    warps: Params  # name -> [outputs, outputs]


def warpgrad(
    loss_fn: LossFn, *, inner_lr: Rate, steps: PositiveSteps, only: Sequence[str] = ("*",)
) -> Algorithm[WarpGradTheta]:
    """Learn a preconditioner for gradient descent on new tasks, initially the identity.

    Args:
        inner_lr: alpha, above 0.
        steps: inner steps, 1 or more; derivatives are taken through one step only.
        loss_fn, only: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is {"params": .., "warps": name -> [outputs, outputs]}.

    Source: after arXiv 1909.00025.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    >>> algorithm = fmaml.warpgrad(loss_fn, inner_lr=0.1, steps=5)
    >>> algorithm.init(model.init(torch.Generator()))["warps"]["layer2.weight"]
    tensor([[1.]])
    """

    def init(params: Params) -> WarpGradTheta:
        warps = {name: torch.eye(len(p) if p.ndim else 1, dtype=p.dtype, device=p.device) for name, p in params.items()}
        return {"params": dict(params), "warps": warps}

    def rule_of(theta: WarpGradTheta) -> Optimizer:
        return chain(warped(theta["warps"]), as_optimizer(inner_lr))

    def phis(theta: WarpGradTheta, support: Batch, steps: int = steps) -> list[Params]:
        params, rule = theta["params"], rule_of(theta)
        return trajectory(loss_fn, params, support, rule, steps=steps, first_order=True, only=only)

    def stepped(theta: WarpGradTheta, params: Params, support: Batch, steps: int) -> Params:
        return adapt_by(loss_fn, params, support, rule_of(theta), steps=steps, first_order=True, only=only)

    def adapt(theta: WarpGradTheta, support: Batch) -> Params:
        return stepped(theta, theta["params"], support, steps)

    def loss(theta: WarpGradTheta, task: Task) -> tuple[Tensor, Metrics]:
        fixed = detach_theta(theta, "warpgrad")
        *before, last = detach_result(phis(fixed, task.support), "warpgrad")
        each = [loss_fn(stepped(theta, phi, task.support, 1), task.query) for phi in before]
        gap = map_leaves(lambda p, q: p - q, theta["params"], last)
        pull = with_gradient(squared_norm(gap) / 2, gap, theta["params"])
        return torch.stack(each).mean() + pull, {"query_loss": loss_fn(last, task.query)}

    return Algorithm(init, adapt, loss, phis)


def warped(warps: dict[str, Tensor]) -> Transform:
    """The transform that multiplies the first axis of each gradient by W W'."""

    def preconditioned(w: Tensor, g: Tensor) -> Tensor:
        return (w @ (w.T @ g.reshape(len(w), -1))).reshape(g.shape)

    def update(grads: Params, state: tuple[()], params: Params) -> tuple[Params, tuple[()]]:
        return {name: preconditioned(warps[name], g) for name, g in grads.items()}, state

    return Transform(no_state, update)
