"""A surrogate has one right derivative; whoever takes another is told, and nothing is silently wrong."""

from typing import Any

import pytest
import torch
from problems import F64, quadratic, quadratic_tasks
from torch import Tensor
from torch.func import grad, hessian, jvp

import fmaml
from fmaml.tree import leaves

SURROGATES: dict[str, Any] = {
    "reptile": fmaml.reptile,
    "imaml": fmaml.imaml,
    "warpgrad": fmaml.warpgrad,
    "remat": lambda loss_fn, **options: fmaml.maml(loss_fn, remat=True, **options),
}


def setting(name: str, inner_lr: Any = 0.1) -> tuple[fmaml.Algorithm, Any, fmaml.Task]:
    algorithm = SURROGATES[name](quadratic, inner_lr=inner_lr, steps=2)
    return algorithm, algorithm.init({"p": torch.randn(3, dtype=F64)}), quadratic_tasks(4, 3)


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("name", SURROGATES)
def test_a_second_derivative_is_refused(name, batching):
    algorithm, theta, tasks = setting(name)

    def slope(theta: Any) -> Tensor:
        grads, _ = fmaml.meta_grad(algorithm, theta, tasks, batching=batching)
        return torch.stack([p.sum() for p in leaves(grads)]).sum()

    for take in (grad, hessian):
        with pytest.raises(ValueError, match=f"{name}: its loss, .* is differentiated a second time; use an algorithm"):
            take(slope)(theta)
    with pytest.raises(ValueError, match="differentiated a second time"):
        jvp(slope, (theta,), (theta,))


@pytest.mark.parametrize("name", sorted({*SURROGATES} - {"warpgrad"}))  # its rate is a number
def test_a_hypergradient_of_the_inner_rate_is_refused(name):
    _, theta, tasks = setting(name)

    def meta_loss(rate: Tensor) -> Tensor:
        return fmaml.meta_loss(setting(name, rate)[0], theta, tasks)[0]

    with pytest.raises(ValueError, match="with respect to something other than theta, such as an inner rate"):
        grad(meta_loss)(torch.tensor(0.1, dtype=F64))
    with pytest.raises(ValueError, match="with respect to something other than theta"):
        meta_loss(torch.tensor(0.1, dtype=F64, requires_grad=True))


@pytest.mark.parametrize("name", sorted({*SURROGATES} - {"warpgrad"}))
def test_backward_twice_is_no_silent_constant(name):
    algorithm, theta, tasks = setting(name)
    theta = {"p": theta["p"].requires_grad_()}
    (slope,) = torch.autograd.grad(fmaml.meta_loss(algorithm, theta, tasks)[0], theta["p"], create_graph=True)
    assert torch.equal(slope.detach(), fmaml.meta_grad(algorithm, {"p": theta["p"].detach()}, tasks)[0]["p"])
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(slope.sum(), theta["p"])
