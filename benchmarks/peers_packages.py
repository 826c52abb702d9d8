"""The meta-gradient of MAML in other packages for PyTorch. Each function returns a call for a dict of gradients."""

# these packages are installed only for benchmarks, and some have no types:
# pyright: reportMissingImports=false

from collections import OrderedDict
from typing import Any

import torch
from networks import Problem
from peers_torch import Gradient, grads_of, module
from torch import Tensor, nn

from fmaml.tree import leading, take
from fmaml.types import Params, Task


def higher_loop(problem: Problem, tasks: Task, steps: int) -> Gradient:
    import higher

    net, count = module(problem), leading(tasks)
    inner = torch.optim.SGD(net.parameters(), lr=problem.inner_lr)

    def run() -> Params:
        net.zero_grad()
        for i in range(count):
            support, query = take(tasks, i)
            with higher.innerloop_ctx(net, inner, copy_initial_weights=False) as (fnet, diffopt):
                for _ in range(steps):
                    diffopt.step(problem.criterion(fnet(support.x), support.y))
                (problem.criterion(fnet(query.x), query.y) / count).backward()
        return grads_of(net)

    return run


def torchopt_loop(problem: Problem, tasks: Task, steps: int) -> Gradient:
    import torchopt

    net, count = module(problem), leading(tasks)
    inner = torchopt.MetaSGD(net, lr=problem.inner_lr)

    def run() -> Params:
        net.zero_grad()
        start, inner_start = torchopt.extract_state_dict(net), torchopt.extract_state_dict(inner)
        for i in range(count):
            support, query = take(tasks, i)
            for _ in range(steps):
                inner.step(problem.criterion(net(support.x), support.y))
            (problem.criterion(net(query.x), query.y) / count).backward()
            torchopt.recover_state_dict(net, start)
            torchopt.recover_state_dict(inner, inner_start)
        return grads_of(net)

    return run


def iteryne_loop(problem: Problem, tasks: Task, steps: int) -> Gradient:
    from iteryne import MAML

    net, count = module(problem), leading(tasks)
    maml = MAML(net, inner_lr=problem.inner_lr, inner_steps=steps)

    def run() -> Params:
        net.zero_grad()
        for i in range(count):
            support, query = take(tasks, i)
            learner = maml.clone()
            for _ in range(steps):
                learner.adapt(problem.criterion(learner(support.x), support.y))
            (problem.criterion(learner(query.x), query.y) / count).backward()
        return grads_of(net)

    return run


def parallel_metalearn(problem: Problem, tasks: Task, steps: int) -> Gradient:
    """The package's meta-step, with an outer learning rate of 0."""
    from metalearn.algorithms import MAML
    from metalearn.inner_optimizers import InnerSGD
    from metalearn.loss import BaseLoss

    class Network(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, **options: Any) -> dict[str, Tensor]:
            return {"logits": self.net(x)}

        def get_fast_weights(self) -> OrderedDict[str, nn.Parameter]:
            return OrderedDict(self.named_parameters())

    class Loss(BaseLoss):
        def forward(
            self, out_dict: Any, targets: Any, model_states: Any = None, **options: Any
        ) -> tuple[Tensor, Tensor]:
            loss = problem.criterion(out_dict["logits"], targets)
            return loss, loss.detach()

    net = module(problem)
    network = Network(net)
    inner = InnerSGD(network.get_fast_weights(), learn_lr=False).to(next(net.parameters()).dtype)
    for rate in inner.parameters():
        rate.fill_(problem.inner_lr)  # set here, because the constructor would round it to float32
    outer = torch.optim.SGD(network.parameters(), lr=0.0)
    options: Any = {"model": network, "optimizer": outer, "inner_optimizer": inner, "support_loss_fn": Loss()}
    maml = MAML(**options, inner_steps=steps, device=next(net.parameters()).device)
    batch = (tasks.support.x, tasks.support.y, tasks.query.x, tasks.query.y)

    def run() -> Params:
        maml.step(iter([batch]))
        return grads_of(net)

    return run
