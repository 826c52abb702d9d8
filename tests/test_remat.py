"""Running the inner loop again gives the meta-gradient that keeping it gives."""

from typing import Any, cast

import pytest
import torch
from problems import doubled, image_tasks, peak, regression_tasks, relative

import fmaml
from fmaml import remat as remat_file

pytestmark = pytest.mark.core

RULES = {
    "a rate": 0.1,
    "a rate each": {f"layer{i}.{part}": 0.1 / i for i in (1, 2, 3) for part in ("weight", "bias")},
    "momentum": fmaml.momentum(0.05, decay=0.8),
    "adam": fmaml.adam(0.01),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("options", [{}, {"batching": "loop"}, {"chunk_size": 2}], ids=["vmap", "loop", "chunks"])
def test_same_gradient_for_any_inner_rule(rule, steps, options):
    model = fmaml.mlp(inputs=(3,), outputs=2, activation="tanh")
    theta, tasks = doubled(model.init(torch.Generator().manual_seed(0))), regression_tasks(3, 3, 2)
    loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    kept, again = (fmaml.maml(loss_fn, inner_lr=RULES[rule], steps=steps, remat=remat) for remat in (False, True))
    expected, metrics = fmaml.meta_grad(kept, theta, tasks)
    grads, also = fmaml.meta_grad(again, theta, tasks, **options)
    assert relative(grads, expected) < 1e-12
    assert relative(also, metrics) < 1e-13
    (loss, _), (same, _) = (fmaml.meta_loss(algorithm, theta, tasks, **options) for algorithm in (kept, again))
    assert relative(same, loss) < 1e-13


@pytest.mark.parametrize("rule", ["a rate", "adam"])
@pytest.mark.parametrize("steps", [2, 4, 7, 9])
def test_same_gradient_when_only_the_start_of_each_part_is_kept(rule, steps, monkeypatch):
    model = fmaml.mlp(inputs=(3,), outputs=2, activation="tanh")
    theta, tasks = doubled(model.init(torch.Generator().manual_seed(0))), regression_tasks(3, 3, 2)
    loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    again = fmaml.maml(loss_fn, inner_lr=RULES[rule], steps=steps, remat=True)
    expected, metrics = fmaml.meta_grad(again, theta, tasks)
    monkeypatch.setattr(remat_file, "KEEP_ALL", 0)
    grads, also = fmaml.meta_grad(again, theta, tasks)
    assert all(torch.equal(grads[name], expected[name]) for name in expected)
    assert relative(also, metrics) == 0


@pytest.mark.parametrize("steps", [33, 40, 100, 1000])
def test_parts_are_all_the_steps_and_about_as_many_as_long(steps):
    split = remat_file.parts(steps)
    assert [k for part in split for k in part] == list(range(steps))
    assert max(len(split), *map(len, split)) <= steps**0.5 + 2


@pytest.mark.parametrize("only", [("*",), ("head.*",), ("conv*",)])
def test_same_gradient_of_conv4_whatever_is_adapted(only):
    model = fmaml.conv4(inputs=(1, 28, 28), outputs=3, width=8)
    theta, tasks = doubled(model.init(torch.Generator().manual_seed(0))), image_tasks(2, (1, 28, 28))
    loss_fn = fmaml.supervised(model.apply, fmaml.cross_entropy)
    kept, again = (fmaml.maml(loss_fn, inner_lr=0.4, steps=3, only=only, remat=remat) for remat in (False, True))
    assert relative(fmaml.meta_grad(again, theta, tasks)[0], fmaml.meta_grad(kept, theta, tasks)[0]) < 1e-12


def test_a_rate_that_is_missing_and_a_pattern_that_is_a_string():
    theta, tasks = {"a": torch.ones(2), "b": torch.ones(2)}, regression_tasks(1, 1, 1)
    loss_fn = lambda params, batch: (params["a"] * params["b"]).sum()  # noqa: E731
    with pytest.raises(ValueError, match="no rate for b; give one"):
        fmaml.meta_grad(fmaml.maml(loss_fn, inner_lr={"a": 0.1}, steps=1), theta, tasks)
    one, same = (
        fmaml.maml(loss_fn, inner_lr=0.1, steps=1, only=only, inner="adam") for only in (cast(Any, "a"), ("a",))
    )
    assert relative(fmaml.meta_grad(one, theta, tasks)[0], fmaml.meta_grad(same, theta, tasks)[0]) == 0


def test_first_order_stays_first_order():
    model = fmaml.mlp(inputs=(3,), outputs=2, activation="tanh")
    theta, tasks = doubled(model.init(torch.Generator().manual_seed(0))), regression_tasks(3, 3, 2)
    loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    kept, again = (fmaml.maml(loss_fn, inner_lr=0.1, steps=2, first_order=True, remat=remat) for remat in (False, True))
    assert relative(fmaml.meta_grad(again, theta, tasks)[0], fmaml.meta_grad(kept, theta, tasks)[0]) == 0


def test_memory_does_not_grow_with_the_steps():
    """Bytes that autograd keeps for the backward pass, with 12 steps against 2."""
    model = fmaml.mlp(inputs=(3,), outputs=2, hidden=[64, 64], activation="tanh")
    theta, tasks = doubled(model.init(torch.Generator().manual_seed(0))), regression_tasks(2, 3, 2, n=500)
    loss_fn = fmaml.supervised(model.apply, fmaml.mse)

    def held(remat: bool, steps: int) -> int:
        algorithm = fmaml.maml(loss_fn, inner_lr=0.01, steps=steps, remat=remat)
        return peak(lambda: fmaml.meta_grad(algorithm, theta, tasks))

    assert held(True, 12) < 1.3 * held(True, 2)
    assert held(False, 12) > 2 * held(False, 2)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_every_step_but_the_last_runs_again(steps):
    seen: list[int] = []

    def loss_fn(params: fmaml.Params, batch: fmaml.Batch) -> torch.Tensor:
        seen.append(len(batch.y))
        return (params["p"] * batch.x - batch.y).square().mean()

    task = fmaml.Task(fmaml.Batch(torch.ones(1, 2), torch.ones(1, 2)), fmaml.Batch(torch.ones(1, 3), torch.ones(1, 3)))
    algorithm = fmaml.maml(loss_fn, inner_lr=0.1, steps=steps, remat=True)
    fmaml.meta_grad(algorithm, {"p": torch.tensor(0.5)}, task)
    assert (seen.count(2), seen.count(3)) == (2 * steps - 1, 1)
