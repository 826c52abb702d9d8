"""Memory that runs short: the same tasks, fewer at a time, and the same gradient."""

import json
import subprocess
import sys
import textwrap

import pytest
import torch

from fmaml.checkpoints.progress import StepForm
from fmaml.config.build import build
from fmaml.config.load import load_config
from fmaml.config.settings import TrainSettings
from fmaml.errors import RunFailed
from fmaml.outer import init_state
from fmaml.processes.limits import is_out_of_memory
from fmaml.training.memory import TaskTooLarge, explain_out_of_memory
from fmaml.training.step import Chunks, TrainingStep

REAL = """
    import json, resource
    import torch, fmaml
    from fmaml.training.step import Chunks
    from fmaml.tree import global_norm, map_leaves

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=16)
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.4, steps=1)
    theta = map_leaves(torch.Tensor.double, model.init(torch.Generator().manual_seed(0)))
    x, y = torch.randn(16, 50, 1, 28, 28, dtype=torch.float64), torch.arange(50).remainder(5).repeat(16, 1)
    tasks = fmaml.Task(fmaml.Batch(x[:, :25], y[:, :25]), fmaml.Batch(x[:, 25:], y[:, 25:]))

    def gradient(size):
        return fmaml.meta_grad(algorithm, theta, tasks, chunk_size=size)[0]

    looped = fmaml.meta_grad(algorithm, theta, tasks, batching="loop")[0]
    in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + (150 << 20),) * 2)
    said = []
    chunks = Chunks(None, said.append)
    halved = chunks(gradient, 16)
    again = chunks(gradient, 16)
    apart = map_leaves(lambda a, b: a - b, halved, looped)
    print(json.dumps([float(global_norm(apart) / global_norm(looped)), chunks.size, said]))
"""


def test_a_real_shortage_halves_the_chunk_and_keeps_the_gradient():
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(REAL)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    apart, size, said = json.loads(done.stdout)
    assert apart < 1e-12
    assert said[0] == "out of memory with 16 tasks at a time; continuing with 8 (train.chunk_size)"
    assert 1 <= size <= 8
    assert said[-1].endswith(f"with {size} (train.chunk_size)")


def test_the_chunk_is_halved_until_it_fits_and_stays():
    said, asked = [], []

    def fits_three(size: int | None) -> str:
        asked.append(size)
        if (size or 16) > 3:
            raise MemoryError
        return "done"

    chunks = Chunks(None, said.append)
    assert chunks(fits_three, 16) == chunks(fits_three, 16) == "done"
    assert asked == [None, 8, 4, 2, 2]
    assert len(said) == 3


def test_one_task_that_does_not_fit_ends_the_run_with_a_cure():
    def never(size: int | None) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(TaskTooLarge):
        Chunks(None, print)(never, 4)


@pytest.mark.parametrize(
    ("algorithm", "cure"),
    [
        ("maml", "lower the largest of .*, or set algorithm.remat=true or algorithm.first_order=true"),
        ("joint", r"lower the largest of model.hidden = \[40, 40\], train.meta_batch = 25, data.shots = 10$"),
        ("reptile", r"lower the largest of model.hidden = \[40, 40\], train.meta_batch = 25, data.shots = 10$"),
    ],
)
def test_the_cure_names_only_what_there_is(algorithm, cure):
    config = load_config("sinusoid", [f"algorithm.name={algorithm}", "train.baseline=false"])
    with (
        pytest.raises(RunFailed, match=f"out of memory with one task at a time; {cure}"),
        explain_out_of_memory(config),
    ):
        raise TaskTooLarge


def test_a_loop_has_nothing_to_halve(monkeypatch):
    sizes, said = [], []

    def never(*_, chunk_size, **__):
        sizes.append(chunk_size)
        raise MemoryError

    monkeypatch.setattr("fmaml.training.step.meta_step", never)
    experiment = build(load_config("sinusoid", []), torch.device("cpu"))
    theta = experiment.model.init(torch.Generator().manual_seed(0))
    settings = TrainSettings(meta_steps=1, meta_batch=4, batching="loop", compile=False)
    step = TrainingStep(experiment, settings, said.append, StepForm())
    state = init_state(experiment.algorithm, experiment.optimizer, theta)
    with pytest.raises(TaskTooLarge):
        step(state, experiment.source.sample("train", 1, range(4)))
    assert sizes == [None]
    assert said == []


def test_other_errors_pass():
    def other(size: int | None) -> None:
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        Chunks(None, print)(other, 4)
    assert not is_out_of_memory(RuntimeError("size mismatch"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
