"""The meta-gradient of MAML as in courses and in torch.func's example, as calls that return a dict of gradients.

The modules' parameters have the same names and initial values as fmaml's.
"""

from collections.abc import Callable

import torch
from networks import Problem
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

import fmaml
from fmaml.tree import leading, take
from fmaml.types import LossFn, Params, Task

Gradient = Callable[[], Params]


class Conv4(nn.Module):
    """The strided network; batch norm by the statistics of the batch."""

    def __init__(self, channels: int, width: int, outputs: int) -> None:
        super().__init__()
        for i in range(1, 5):
            self.add_module(f"conv{i}", nn.Conv2d(channels if i == 1 else width, width, 3, 2, 1, bias=False))
            self.add_module(f"norm{i}", nn.BatchNorm2d(width, track_running_stats=False))
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, 5):
            x = F.relu(self.get_submodule(f"norm{i}")(self.get_submodule(f"conv{i}")(x)))
        return self.head(x.mean((2, 3)))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2, self.layer3 = nn.Linear(1, 40), nn.Linear(40, 40), nn.Linear(40, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer3(F.relu(self.layer2(F.relu(self.layer1(x)))))


def module(problem: Problem) -> nn.Module:
    first = problem.params.get("conv1.weight")
    net = Mlp() if first is None else Conv4(first.shape[1], first.shape[0], len(problem.params["head.bias"]))
    net.to(next(iter(problem.params.values())))  # the device and the dtype
    net.load_state_dict(problem.params)
    return net


def grads_of(net: nn.Module) -> Params:
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def autograd_loop(problem: Problem, tasks: Task, steps: int) -> Gradient:
    """As taught in courses: a dict of parameters, `torch.autograd.grad` with create_graph, and a loop over tasks."""
    theta = {name: p.clone().requires_grad_() for name, p in problem.params.items()}

    def adapted(support: fmaml.Batch) -> Params:
        phi = theta
        for _ in range(steps):
            grads = torch.autograd.grad(problem.loss_fn(phi, support), list(phi.values()), create_graph=True)
            phi = {name: p - problem.inner_lr * g for (name, p), g in zip(phi.items(), grads, strict=True)}
        return phi

    def run() -> Params:
        each = [take(tasks, i) for i in range(leading(tasks))]
        losses = [problem.loss_fn(adapted(task.support), task.query) for task in each]
        grads = torch.autograd.grad(torch.stack(losses).mean(), list(theta.values()))
        return dict(zip(theta, grads, strict=True))

    return run


def gradient_outside(problem: Problem, tasks: Task, steps: int) -> Gradient:
    """As in torch.func's example, with vmap inside and backward outside, but with fmaml's network."""
    return outside(problem.loss_fn, problem, tasks, steps)


def modules_outside(problem: Problem, tasks: Task, steps: int) -> Gradient:
    """As in torch.func's example, with a module."""
    net = module(problem)
    loss_fn = fmaml.supervised(lambda params, x: functional_call(net, params, (x,)), problem.criterion)
    return outside(loss_fn, problem, tasks, steps)


def outside(loss_fn: LossFn, problem: Problem, tasks: Task, steps: int) -> Gradient:
    def task_loss(theta: Params, task: Task) -> Tensor:
        phi = theta
        for _ in range(steps):
            grads = grad(loss_fn)(phi, task.support)
            phi = {name: p - problem.inner_lr * grads[name] for name, p in phi.items()}
        return loss_fn(phi, task.query)

    def run() -> Params:
        theta = {name: p.clone().requires_grad_() for name, p in problem.params.items()}
        vmap(task_loss, (None, 0))(theta, tasks).mean().backward()
        return {name: p.grad for name, p in theta.items() if p.grad is not None}

    return run
