"""The compiled step: the same numbers to second order, compiled once, and a way back that says why."""

from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from problems import F64, regression_tasks, relative
from torch._dynamo.testing import CompileCounter

import fmaml
from fmaml.checkpoints.progress import StepForm
from fmaml.config.build import build
from fmaml.config.load import load_config
from fmaml.config.settings import TrainSettings
from fmaml.processes.join import STOPPED
from fmaml.training import step as step_module
from fmaml.training.compiled import FINITE, OperationCount, compiled, kept_guards
from fmaml.training.run_experiment import initial_params
from fmaml.training.step import TrainingStep, compiling_saves_time, updated_together
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


@pytest.mark.parametrize(
    ("options", "chunk_size", "backend"),
    [({}, None, "aot_eager"), ({"first_order": True}, 2, "eager"), (ADAM, None, "eager")],
)
def test_compiled_equals_eager_to_second_order(options, chunk_size, backend):
    algorithm, step, state = problem(**options)
    fast = compiled(step, algorithm, silent, backend=backend)
    eager, quick = state, state
    for _ in range(3):
        batch = tasks()
        eager, metrics = step(eager, batch, chunk_size=chunk_size)
        quick, same = fast(quick, batch, chunk_size=chunk_size)
        assert relative(same["query_loss"], metrics["query_loss"]) < 1e-12
    assert relative(quick.theta, eager.theta) < 1e-12
    assert quick.step == eager.step == 3


def test_inductor_equals_eager_to_second_order_and_finds_what_is_not_finite():
    algorithm, step, state = problem()
    batch = tasks()
    fast = compiled(step, algorithm, silent)
    new, metrics = fast(state, batch)
    expected, same = step(state, batch)
    assert relative(new.theta, expected.theta) < 1e-12
    assert relative(metrics["query_loss"], same["query_loss"]) < 1e-12
    assert metrics[FINITE]
    assert FINITE not in same
    third = torch.arange(len(batch.query.y))[:, None, None] == 2
    for value in (torch.nan, torch.inf):
        wrong = batch._replace(query=batch.query._replace(y=torch.where(third, value, batch.query.y)))
        assert not fast(new, wrong)[1][FINITE]
        past = map_leaves(lambda leaf, value=value: leaf * value, new.opt_state)
        _, metrics = fast(new._replace(opt_state=past), batch)
        assert metrics["query_loss"].isfinite()
        assert not metrics[FINITE]


def test_processes_check_the_state_after_their_common_update():
    algorithm, _, state = problem()
    settings = TrainSettings(**load_config("sinusoid")["train"])

    def own_gradient(state, tasks):
        return state, {"query_loss": torch.zeros(()), FINITE: torch.tensor(True)}

    state = fmaml.init_state(algorithm, rule := fmaml.sgd(1.0), state.theta)
    _, metrics = updated_together(own_gradient, rule, settings)(state, tasks())
    assert metrics.keys() == {"query_loss", STOPPED}


SCALE = 1.0


def test_a_changed_variable_of_a_loss_is_noticed(monkeypatch):
    model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    loss_fn = fmaml.supervised(model.apply, lambda output, y: SCALE * fmaml.mse(output, y))
    algorithm = fmaml.maml(loss_fn, inner_lr=0.1, steps=1)
    rule = fmaml.sgd(0.1)
    state = fmaml.init_state(algorithm, rule, model.init(torch.Generator().manual_seed(0)))
    batch = map_leaves(lambda leaf: leaf.float(), tasks())
    fast = compiled(partial(fmaml.meta_step, algorithm, rule), algorithm, silent, backend="eager")
    before = fast(state, batch)[1]["query_loss"]
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    after = fast(state, batch)[1]["query_loss"]
    assert relative(after, fmaml.meta_step(algorithm, rule, state, batch)[1]["query_loss"]) < 1e-6
    assert after > before


def test_only_guards_on_variables_of_torch_fmaml_and_python_are_left_out():
    names = ["__import_torch_dot_x", "__import_fmaml_dot_outer", "__builtins_dict___0", "SCALE", "__import_torchother"]
    guards = [SimpleNamespace(is_global=True, name=f"G['{name}'].y") for name in names]
    guards += [SimpleNamespace(is_global=False, name=name) for name in ("tasks.query.x", "chunk_size", "")]
    assert kept_guards(guards) == [False, False, False, True, True, True, True, True]


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


def test_it_pays_for_little_work_in_long_runs():
    """The work of the sinusoid's step and of conv4 with 64 filters, 16 tasks, 15 queries a class (operations.json)."""
    sinusoid, conv4 = OperationCount(765, 40_000_000), OperationCount(1_022, 165_000_000_000)
    assert compiling_saves_time(sinusoid, 70_000, looped=False)
    assert not compiling_saves_time(sinusoid, 500, looped=False)
    assert not compiling_saves_time(conv4, 70_000, looped=False)


def test_it_pays_for_less_work_where_tasks_are_looped():
    """Prototypes of 120 images of 32x32x3, one task a step, and MAML of one task: 1.28 and 0.95 of the time."""
    prototypes, maml = OperationCount(471, 9_785_000_000), OperationCount(945, 1_982_000_000)
    assert not compiling_saves_time(prototypes, 12_000, looped=True)
    assert compiling_saves_time(maml, 60_000, looped=True)
    assert compiling_saves_time(prototypes, 12_000, looped=False)


@pytest.mark.parametrize(
    "rule", [fmaml.adam(1e-2), fmaml.sgd(1e-2), fmaml.momentum(1e-2)], ids=["adam", "sgd", "momentum"]
)
def test_a_compiler_that_computes_something_else_is_not_believed(rule):
    algorithm, _, state = problem()
    step, state, said = partial(fmaml.meta_step, algorithm, rule), fmaml.init_state(algorithm, rule, state.theta), []

    def wrong(graph, inputs):
        def run(*values):
            return tuple(1.1 * found if found.is_floating_point() else found for found in graph(*values))

        return run

    batch = tasks()
    fast = compiled(step, algorithm, said.append, backend=cast(Any, wrong))
    assert relative(fast(state, batch)[0].theta, step(state, batch)[0].theta) == 0
    (line,) = said
    assert line.startswith("train.compile: the compiled step differs from the uncompiled one by ")
    assert line.endswith("run uncompiled")


def test_the_first_step_of_a_run_is_not_compiled(monkeypatch):
    calls = []
    monkeypatch.setattr(
        step_module, "compiled", lambda step, *args: lambda *a, **k: calls.append("compiled") or step(*a, **k)
    )
    config = load_config("sinusoid", ["train.compile=true"])
    experiment = build(config, torch.device("cpu"))
    said: list[str] = []
    step = TrainingStep(experiment, TrainSettings(**config["train"]), said.append, StepForm())
    state = fmaml.init_state(
        experiment.algorithm, experiment.optimizer, initial_params(experiment, 0, torch.device("cpu"))
    )
    for number in (1, 2, 3):
        state, _ = step(state, experiment.source.sample("train", number, range(4)))
        assert len(calls) == number - 1
        assert step.form.compiled
    assert said == [step_module.COMPILING]


@pytest.mark.parametrize(("batching", "looped"), [("loop", True), ("vmap", False)])
def test_whether_it_pays_is_asked_of_the_step_as_it_is(monkeypatch, batching, looped):
    asked: list[bool] = []
    monkeypatch.setattr(
        step_module, "compiling_saves_time", lambda work, meta_steps, *, looped: bool(asked.append(looped))
    )
    config = load_config("sinusoid", ["train.meta_batch=4", f"train.batching={batching}"])
    experiment = build(config, torch.device("cpu"))
    step = TrainingStep(experiment, TrainSettings(**config["train"]), silent, StepForm())
    params = initial_params(experiment, 0, torch.device("cpu"))
    state = fmaml.init_state(experiment.algorithm, experiment.optimizer, params)
    step(state, experiment.source.sample("train", 1, range(4)))
    assert asked == [looped]
    assert not step.form.compiled
