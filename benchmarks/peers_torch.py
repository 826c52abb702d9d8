"""The meta-gradient of MAML as in courses and in torch.func's example, as calls that return a dict of gradients.

The modules' parameters have the same names and initial values as fmaml's.
"""

from collections.abc import Callable

import torch
from networks import Problem, is_pooled
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

import fmaml
from fmaml.tree import leading, take
from fmaml.types import LossFn, Params, Task

Gradient = Callable[[], Params]


class Conv4(nn.Module):
    """The network with batch norm by the statistics of the batch; strided, or with max-pooling."""

    def __init__(self, channels: int, width: int, features: int, outputs: int, pooled: bool) -> None:
        super().__init__()
        self.pooled, stride = pooled, 1 if pooled else 2
        for i in range(1, 5):
            self.add_module(f"conv{i}", nn.Conv2d(channels if i == 1 else width, width, 3, stride, 1, bias=False))
            self.add_module(f"norm{i}", nn.BatchNorm2d(width, track_running_stats=False))
        self.head = nn.Linear(features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, 5):
            x = F.relu(self.get_submodule(f"norm{i}")(self.get_submodule(f"conv{i}")(x)))
            x = F.max_pool2d(x, 2) if self.pooled else x
        return self.head(x.flatten(1) if self.pooled else x.mean((2, 3)))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2, self.layer3 = nn.Linear(1, 40), nn.Linear(40, 40), nn.Linear(40, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer3(F.relu(self.layer2(F.relu(self.layer1(x)))))


def module(problem: Problem) -> nn.Module:
    params, net = problem.params, Mlp()
    if "conv1.weight" in params:
        width, channels = params["conv1.weight"].shape[:2]
        outputs, features = params["head.weight"].shape
        net = Conv4(channels, width, features, outputs, is_pooled(params))
    net.to(next(iter(params.values())))  # the device and the dtype
    net.load_state_dict(params)
    return net


def grads_of(net: nn.Module) -> Params:
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def autograd_loop(problem: Problem, tasks: Task, steps: int) -> Gradient:
    """As taught in courses: a module's parameters, `torch.autograd.grad` with create_graph, and a loop over tasks."""
    loss_fn = module_loss(problem)
    theta = {name: p.clone().requires_grad_() for name, p in problem.params.items()}

    def adapted(support: fmaml.Batch) -> Params:
        phi = theta
        for _ in range(steps):
            grads = torch.autograd.grad(loss_fn(phi, support), list(phi.values()), create_graph=True)
            phi = {name: p - problem.inner_lr * g for (name, p), g in zip(phi.items(), grads, strict=True)}
        return phi

    def run() -> Params:
        each = [take(tasks, i) for i in range(leading(tasks))]
        losses = [loss_fn(adapted(task.support), task.query) for task in each]
        grads = torch.autograd.grad(torch.stack(losses).mean(), list(theta.values()))
        return dict(zip(theta, grads, strict=True))

    return run


def gradient_outside(problem: Problem, tasks: Task, steps: int) -> Gradient:
    """As in torch.func's example, with vmap inside and backward outside, but with fmaml's network."""
    return outside(problem.loss_fn, problem, tasks, steps)


def modules_outside(problem: Problem, tasks: Task, steps: int) -> Gradient:
    """As in torch.func's example, with a module."""
    return outside(module_loss(problem), problem, tasks, steps)


def module_loss(problem: Problem) -> LossFn:
    net = module(problem)
    return fmaml.supervised(lambda params, x: functional_call(net, params, (x,)), problem.criterion)


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
