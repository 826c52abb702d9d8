"""Implicit MAML (Rajeswaran, Finn, Kakade and Levine, arXiv 1909.04630).

The inner problem:     phi_i = argmin over phi of L(phi, D_i^tr) + lambda/2 |phi - theta|^2
Its derivative:        d phi_i / d theta = (I + H / lambda)^-1, H the Hessian of L(phi_i, D_i^tr)
The meta-gradient:     (I + H / lambda) v_i = grad L(phi_i, D_i^ts), by conjugate gradients

A large lambda keeps phi_i close to theta. A small lambda makes H / lambda large. The system is then no longer positive
definite if phi_i has not reached the minimum. H / (lambda + damping) instead moves v_i towards the gradient at phi_i.

The loss <stop(v_i), theta> has the gradient v_i. No inner step is differentiated or kept in memory.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vjp

from ..inner import adapt as adapt_by_steps
from ..inner import inner_rule, trajectory
from ..setting_types import Count, NonNegative, Rate, Rule, Steps
from ..torch_fixes.grad_levels import detach_result, detach_theta, with_gradient
from ..torch_fixes.loss_value import checked
from ..tree import dot, map_leaves, squared_norm, zeros_like
from ..types import Algorithm, Batch, InnerRate, LossFn, Metrics, Params, Task


def imaml(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | InnerRate,
    steps: Steps,
    regularization: Rate = 2.0,
    cg_steps: Count = 5,
    damping: NonNegative = 0.0,
    inner: Rule = "sgd",
) -> Algorithm[Params]:
    """The implicit meta-gradient at the end of the inner loop; memory does not grow with the number of steps.

    Args:
        steps: inner steps, enough to come close to the minimum of the inner problem.
        regularization: lambda, above 0. The default is the published value. Networks learnt much more with 0.1 and a
            damping of 2, see `experiments/algorithms/imaml.yaml`.
        cg_steps: conjugate gradient steps, 1 or more.
        damping: added to lambda in the linear system only; 0 gives the exact meta-gradient at a minimum. The authors'
            code solves 2 v + H v / (lambda + 10) = grad, the same direction as damping = lambda + 20.
        loss_fn, inner_lr, inner: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is the parameters. The loss is a surrogate: only its gradient has a meaning.

    Source: arXiv 1909.04630.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    >>> algorithm = fmaml.imaml(loss_fn, inner_lr=0.01, steps=16)
    >>> theta, batch = model.init(torch.Generator().manual_seed(0)), fmaml.Batch(torch.ones(10, 1), torch.zeros(10, 1))
    >>> float(algorithm.loss(theta, fmaml.Task(batch, batch))[1]["query_loss"]) < float(loss_fn(theta, batch))
    True
    """
    alpha = inner_rule(inner, inner_lr)

    def regularized(theta: Params) -> LossFn:
        def inner_loss(phi: Params, batch: Batch) -> Tensor:
            return checked(loss_fn)(phi, batch) + regularization / 2 * squared_norm(map_leaves(torch.sub, phi, theta))

        return inner_loss

    def phis(theta: Params, support: Batch, steps: int = steps) -> list[Params]:
        return trajectory(regularized(theta), theta, support, alpha, steps=steps)

    def adapt(theta: Params, support: Batch) -> Params:
        return adapt_by_steps(regularized(theta), theta, support, alpha, steps=steps)

    def support_grad(support: Batch, phi: Params) -> Params:
        return grad(loss_fn)(phi, support)

    def loss(theta: Params, task: Task) -> tuple[Tensor, Metrics]:
        phi = detach_result(adapt(detach_theta(theta, "imaml"), task.support), "imaml")
        target, query = grad_and_value(loss_fn)(phi, task.query)
        hessian = vjp(partial(support_grad, task.support), phi)[1]

        def matrix(v: Params) -> Params:
            return map_leaves(lambda a, h: a + h / (regularization + damping), v, hessian(v)[0])

        v = conjugate_gradients(matrix, target, cg_steps)
        return with_gradient(query, v, theta), {"query_loss": query}

    return Algorithm(dict, adapt, loss, phis)


def conjugate_gradients(matrix: Callable[[Params], Params], b: Params, steps: int) -> Params:
    """Solve matrix(x) = b approximately by ``steps`` steps from 0; stop at a direction without positive curvature.

    If the first direction has none, phi is not at a minimum and has no derivative. The result is then 0, so the task
    does not contribute.
    """
    x, residual, direction = zeros_like(b), b, b
    size = dot(b, b)
    active = size > 0
    for _ in range(steps):
        image = matrix(direction)
        curvature = dot(direction, image)
        active = active & (curvature > 0)
        rate = torch.where(active, size / torch.where(active, curvature, 1), 0)
        x = move(x, rate, direction)
        residual = move(residual, -rate, image)
        previous_size, size = size, dot(residual, residual)
        direction = move(residual, size / torch.where(previous_size > 0, previous_size, 1), direction)
    return x


def move(a: Params, rate: Tensor, b: Params) -> Params:
    """a + rate * b."""
    return map_leaves(lambda x, y: x + rate * y, a, b)
