"""``train.compile: graph`` on a GPU that is not there: a stand-in records a step's operations and repeats them.

Like a CUDA graph it repeats operations on tensors, without Python. So a number of Python stays as it was at the
capture, and whatever reads a number ends the capture.
"""

import contextlib
import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fmaml
from fmaml.checkpoints.progress import StepForm
from fmaml.cli.main import main
from fmaml.config.build import build
from fmaml.config.load import load_config
from fmaml.config.settings import TrainSettings
from fmaml.outer import init_state, meta_step
from fmaml.training import cuda_graph, run_experiment
from fmaml.training.cuda_graph import WARM_UPS, captured
from fmaml.training.step import TrainingStep
from fmaml.tree import leaves, map_leaves

READ = ("aten::_local_scalar_dense", "aten::equal", "aten::nonzero")
CPU = torch.device("cpu")


class Recorder(TorchDispatchMode):
    """Records each operation with its tensors; `replay` repeats all into the same memory."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self.said, self.operations = calls, []

    def __enter__(self) -> Any:
        self.said.append("capture")
        return super().__enter__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in READ:
            raise RuntimeError("operation not permitted when stream is capturing\n(more lines)")
        result = func(*args, **(kwargs or {}))
        if not func.is_view:  # a view is of memory that the others fill
            self.operations.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        self.said.append("replay")
        for func, args, kwargs, result in self.operations:
            for old, new in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor):
                    old.copy_(new)


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The calls of a GPU with one stream that is not there."""
    said: list[str] = []
    stream = SimpleNamespace(wait_stream=lambda other: said.append("wait"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Recorder(said))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: graph)
    return said


def steps_of(config: dict[str, Any], count: int = 4) -> list[list[Tensor]]:
    """The leaves of each state and its metrics, read after the last step."""
    experiment, settings = build(config, CPU), TrainSettings(**config["train"])
    step = TrainingStep(experiment, settings, pytest.fail, StepForm())
    params = experiment.model.init(torch.Generator().manual_seed(0))
    state, found = init_state(experiment.algorithm, experiment.optimizer, params), []
    for number in range(1, count + 1):
        state, metrics = step(state, experiment.source.sample("train", number, range(4)))
        found.append((state.theta, state.opt_state, metrics))
        assert state.step == number
    assert not step.form.compiled
    return [leaves(each) for each in found]


SINUSOID = ("sinusoid", "train.meta_batch=4")
CHANGING = ("train.schedule=cosine", "train.meta_steps=4", "train.clip=1", "train.average=0.9")


@pytest.mark.parametrize(
    "settings", [(), CHANGING, ("algorithm.name=meta_sgd",), ("train.chunk_size=2",), ("train.batching=loop",)], ids=str
)
def test_the_steps_are_those_without_a_graph(settings, calls):
    name, *rest = SINUSOID
    plain = steps_of(load_config(name, [*rest, *settings, "train.compile=false"]))
    assert not calls
    found = steps_of(load_config(name, [*rest, *settings, "train.compile=graph"]))
    assert calls == ["wait", "wait", "capture", *["replay"] * 4]
    assert all(torch.equal(a, b) for at_step in zip(plain, found, strict=True) for a, b in zip(*at_step, strict=True))


def test_a_convolutional_step_is_that_without_a_graph(calls, monkeypatch):
    """Without the kernels in C, which no GPU has, and which would not be recorded."""
    monkeypatch.setattr("fmaml.torch_fixes.block.kernels", lambda dtype: None)
    config = ["data.name=glyphs", "model.width=4", "data.ways=2", "data.queries=2", "train.meta_batch=4"]
    plain, found = (
        steps_of(load_config("omniglot", [*config, f"train.compile={way}"]), 2) for way in ("false", "graph")
    )
    assert all(torch.equal(a, b) for at_step in zip(plain, found, strict=True) for a, b in zip(*at_step, strict=True))


def problem(loss_fn=None, **options: Any) -> tuple[Any, Any, Any, fmaml.Task]:
    model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[4])
    algorithm = fmaml.maml(loss_fn or fmaml.supervised(model.apply, fmaml.mse), inner_lr=0.1, steps=1)
    optimizer = options.get("optimizer") or fmaml.adam(1e-2)
    state = init_state(algorithm, optimizer, model.init(torch.Generator().manual_seed(0)))
    x = torch.randn(4, 3, 1, generator=torch.Generator().manual_seed(1))
    tasks = fmaml.Task(fmaml.Batch(x, x.sin()), fmaml.Batch(x, x.sin()))
    return algorithm, optimizer, state, tasks


def step_of(algorithm: Any, optimizer: Any) -> Any:
    return lambda state, tasks, chunk_size: meta_step(algorithm, optimizer, state, tasks, chunk_size=chunk_size)


def test_a_state_does_not_change_when_the_graph_is_replayed(calls):
    algorithm, optimizer, state, tasks = problem()
    step = captured(step_of(algorithm, optimizer), algorithm)
    first, metrics = step(state, tasks)
    kept = map_leaves(torch.clone, (state.theta, first.theta, first.opt_state, metrics))
    step(first, map_leaves(lambda leaf: leaf + 1, tasks))
    now = (state.theta, first.theta, first.opt_state, metrics)
    assert all(torch.equal(a, b) for a, b in zip(leaves(kept), leaves(now), strict=True))


def test_it_warms_up_before_it_captures(calls):
    algorithm, optimizer, state, tasks = problem()
    step, seen = step_of(algorithm, optimizer), []
    captured(lambda *a, **k: seen.append(len(calls)) or step(*a, **k), algorithm)(state, tasks)
    assert seen == [1] * WARM_UPS + [3]  # after the first wait, and after "wait", "wait", "capture"


def test_a_number_of_python_stays_as_it_was(calls):
    """Else the tests above would not show that rates are computed from tensors."""
    taken = iter([1.0] * (WARM_UPS + 1) + [0.0] * 9)
    rate = fmaml.Optimizer(
        lambda theta: (),
        lambda grads, state, theta: ({n: p - lr * grads[n] for lr in [next(taken)] for n, p in theta.items()}, state),
    )
    algorithm, optimizer, state, tasks = problem(optimizer=rate)
    step = captured(step_of(algorithm, optimizer), algorithm)
    first, _ = step(state, tasks)
    second, _ = step(first, tasks)
    assert not torch.equal(leaves(second.theta)[0], leaves(first.theta)[0])
    assert torch.equal(leaves(step_of(algorithm, optimizer)(first, tasks, None)[0].theta)[0], leaves(first.theta)[0])


def test_what_reads_a_number_is_refused(calls):
    optimizer = fmaml.from_torch(torch.optim.Adam, lr=0.1)
    algorithm, optimizer, state, tasks = problem(optimizer=optimizer)
    with pytest.raises(fmaml.Error) as refused:
        captured(step_of(algorithm, optimizer), algorithm)(state, tasks)
    assert str(refused.value) == (
        "train.compile = graph: the step cannot be captured (operation not permitted when stream is capturing); "
        "set train.compile=auto"
    )


def test_another_shape_is_refused(calls):
    algorithm, optimizer, state, tasks = problem()
    step = captured(step_of(algorithm, optimizer), algorithm)
    step(state, tasks)
    with pytest.raises(fmaml.Error, match=r"a tensor of \[3, 3, 1\] after \[4, 3, 1\], and a graph has one shape"):
        step(state, map_leaves(lambda leaf: leaf[:3], tasks))


def test_a_loss_that_changes_with_the_step_is_refused():
    algorithm, optimizer, *_ = problem()
    with pytest.raises(fmaml.Error, match=r"train\.compile = graph: this algorithm's loss changes from step to step"):
        captured(step_of(algorithm, optimizer), algorithm._replace(at=lambda step: algorithm))


def test_memory_that_runs_out_halves_the_chunks_and_captures_again(calls, monkeypatch):
    def plain(algorithm, optimizer, state, tasks, *, batching, chunk_size):
        if chunk_size is None and "capture" in calls:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return meta_step(algorithm, optimizer, state, tasks, batching=batching, chunk_size=chunk_size)

    monkeypatch.setattr("fmaml.training.step.meta_step", plain)
    config, said = load_config("sinusoid", ["train.meta_batch=4", "train.compile=graph"]), []
    experiment = build(config, CPU)
    step = TrainingStep(experiment, TrainSettings(**config["train"]), said.append, StepForm())
    params = experiment.model.init(torch.Generator().manual_seed(0))
    state = init_state(experiment.algorithm, experiment.optimizer, params)
    step(state, experiment.source.sample("train", 1, range(4)))
    assert step.chunks.size == 2
    assert "continuing with 2" in said[0]
    assert calls == ["wait", "wait", "capture", "wait", "wait", "capture", "replay"]


SMALL = [
    "train.baseline=false",
    "train.meta_steps=3",
    "train.meta_batch=4",
    "train.validate_tasks=4",
    "eval.tasks=4",
    "eval.steps=1",
]


def test_a_run_is_that_without_a_graph(calls, tmp_path, monkeypatch):
    monkeypatch.setattr(run_experiment, "check_graph", lambda config, device: None)
    for way in ("false", "graph"):
        command = ["run", "sinusoid", *SMALL, f"train.compile={way}", "--device", "cpu", "--out", str(tmp_path / way)]
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(command) == 0
    assert calls.count("replay") == 3
    plain, graph = (load_file(tmp_path / way / "last.safetensors") for way in ("false", "graph"))
    assert plain.keys() == graph.keys()
    assert all(torch.equal(plain[name], graph[name]) for name in plain)


def test_without_a_gpu_it_is_refused(capsys):
    assert main(["run", "sinusoid", "train.compile=graph", "--dry-run", "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "train.compile = graph: the device is cpu, and only a GPU has CUDA graphs; set train.compile=auto" in said


def test_a_gpu_is_accepted():
    config = {"train": {"compile": "graph"}}
    cuda_graph.check_graph(config, torch.device("cuda"))
