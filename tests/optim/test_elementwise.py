"""The leaves of a tree as one vector: few kernels, and the bits of one kernel for each leaf."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import fmaml
from fmaml.optim import elementwise as module
from fmaml.optim.elementwise import can_join, elementwise
from fmaml.tree import leaves

pytestmark = pytest.mark.core

OPTIMIZERS = {
    "sgd": fmaml.sgd(fmaml.cosine(0.1, 10)),
    "momentum": fmaml.momentum(0.1, nesterov=True),
    "adam": fmaml.adam(fmaml.cosine(0.1, 10)),
    "adamw": fmaml.adamw(0.1),
    "clipped": fmaml.chain(fmaml.clip_by_global_norm(0.1), fmaml.adam(0.1)),
    "average_params": fmaml.average_params(fmaml.adam(0.1)),
}


VIEWS = {"view", "split_with_sizes", "_unsafe_view", "detach", "alias"}  # launch nothing


class Kernels(TorchDispatchMode):
    """Counts the operations that launch a kernel."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ not in VIEWS
        return func(*args, **(kwargs or {}))


def after_three_steps(optimizer: fmaml.Optimizer) -> tuple[list[Tensor], int]:
    """All numbers after three steps, and the number of kernels of the last."""
    generator = torch.Generator().manual_seed(0)
    model = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=8)
    theta = model.init(generator)
    state, seen = optimizer.init(theta), Kernels()
    for _ in range(3):
        grads = {name: torch.randn(p.shape, generator=generator) for name, p in reversed(theta.items())}
        seen.count = 0
        with seen:
            theta, state = optimizer.step(grads, state, theta)
    return leaves((theta, state)), seen.count


def as_if_on_a_gpu(monkeypatch) -> None:
    """Leaves on the CPU are joined as well."""
    monkeypatch.setattr(module, "LEAF_BY_LEAF", "")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_joined_or_leaf_by_leaf_the_bits_are_the_same(name, monkeypatch):
    apart, many = after_three_steps(OPTIMIZERS[name])
    as_if_on_a_gpu(monkeypatch)
    together, few = after_three_steps(OPTIMIZERS[name])
    assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))
    assert few < many / 2


def test_an_adam_step_is_few_kernels_on_a_gpu(monkeypatch):
    as_if_on_a_gpu(monkeypatch)
    _, count = after_three_steps(fmaml.adam(1e-3))
    assert count <= 32  # 258 leaf by leaf


def test_only_leaves_of_one_type_that_are_not_differentiated_are_joined():
    on_gpu = [torch.empty(2, device="meta"), torch.empty(3, device="meta")]
    assert can_join(on_gpu)
    assert not can_join([*on_gpu, torch.empty(2, device="meta", dtype=torch.float64)])
    assert not can_join([*on_gpu, torch.empty(2, device="meta", requires_grad=True)])
    seen: list[bool] = []
    torch.func.vmap(lambda x: seen.append(can_join([x])) or x)(on_gpu[0])
    torch.func.grad(lambda x: seen.append(can_join([x])) or x.sum())(on_gpu[0])
    assert seen == [False, False]


def test_leaves_are_matched_by_name(monkeypatch):
    as_if_on_a_gpu(monkeypatch)
    a, b = {"p": torch.tensor([1.0]), "q": torch.tensor([2.0])}, {"q": torch.tensor([5.0]), "p": torch.tensor([3.0])}
    assert elementwise(lambda x, y: x - y, a, b) == {"p": torch.tensor([-2.0]), "q": torch.tensor([-3.0])}
