"""The compiled step: the same numbers to second order, compiled once, and a way back that says why."""

from functools import partial
from typing import Any, cast

import pytest
import torch
from problems import F64, regression_tasks, relative
from torch._dynamo.testing import CompileCounter

import fmaml
from fmaml.run.step import compiled, compiling_saves_time
from fmaml.tree import map_leaves


def problem(inner_lr=0.1, **options):
    model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.mse), inner_lr=inner_lr, steps=2, **options)
    optimizer = fmaml.adam(fmaml.cosine(1e-2, 10))
    theta = map_leaves(lambda p: p.to(F64), model.init(torch.Generator().manual_seed(0)))
    return algorithm, partial(fmaml.meta_step, algorithm, optimizer), fmaml.init_state(algorithm, optimizer, theta)


def tasks():
    return regression_tasks(4, 1, 1)


def silent(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    torch._dynamo.reset()


ADAM = {"remat": True, "inner_lr": fmaml.adam(0.1), "only": ("layer2.*",)}


@pytest.mark.parametrize(("options", "chunk_size"), [({}, None), ({"first_order": True}, 2), (ADAM, None)])
def test_compiled_equals_eager_to_second_order(options, chunk_size):
    algorithm, step, state = problem(**options)
    fast = compiled(step, algorithm, silent, backend="aot_eager")
    eager, quick = state, state
    for _ in range(3):
        batch = tasks()
        eager, metrics = step(eager, batch, chunk_size=chunk_size)
        quick, same = fast(quick, batch, chunk_size=chunk_size)
        assert relative(same["query_loss"], metrics["query_loss"]) < 1e-12
    assert relative(quick.theta, eager.theta) < 1e-12
    assert quick.step == eager.step == 3


def test_inductor_equals_eager_to_second_order():
    algorithm, step, state = problem()
    batch = tasks()
    new, metrics = compiled(step, algorithm, silent)(state, batch)
    expected, same = step(state, batch)
    assert relative(new.theta, expected.theta) < 1e-12
    assert relative(metrics["query_loss"], same["query_loss"]) < 1e-12


def test_three_steps_compile_once():
    algorithm, step, state = problem()
    counter = CompileCounter()
    fast = compiled(step, algorithm, silent, backend=cast(Any, counter))
    for _ in range(3):
        state, _ = fast(state, tasks())
    assert counter.frame_count == 1


def test_what_cannot_be_compiled_runs_as_it_is_and_says_why():
    algorithm, step, state = problem()
    said = []

    def branches(state, batch, chunk_size=None):
        if float(batch.support.x.sum()) > 0:  # depends on data
            print(end="")
        return step(state, batch)

    batch = tasks()
    fast, new = compiled(branches, algorithm, said.append, backend="eager"), state
    for _ in range(3):
        new, _ = fast(state, batch)
    assert relative(new.theta, step(state, batch)[0].theta) == 0
    assert len(said) == 1
    assert said[0].startswith("train.compile: ")
    assert said[0].endswith("run uncompiled")


def test_a_loss_that_changes_with_the_step_is_not_compiled():
    algorithm, step, _ = problem()
    said = []
    changing = fmaml.first_then(algorithm, algorithm, until=3)
    assert compiled(step, changing, said.append) is step
    assert "changes from step to step" in said[0]


def test_it_pays_for_small_networks_and_long_runs():
    small, large = {"w": torch.zeros(100)}, {"w": torch.zeros(100_000)}
    assert compiling_saves_time(small, 70_000)
    assert not compiling_saves_time(small, 500)
    assert not compiling_saves_time(large, 70_000)
