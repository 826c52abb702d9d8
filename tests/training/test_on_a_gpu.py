"""Every shipped experiment on a GPU that is not there: nothing waits for it, and nothing is left on the CPU.

Fake tensors have a shape, a type and a device, but no numbers. What reads one (`float`, `bool`), mixes devices,
or makes a tensor of Python's numbers and copies it over, raises: on a GPU each of those waits, or cannot be captured.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any
from unittest.mock import patch

import pytest
import torch
from shipped import EACH, smallest
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from fmaml.config.build import build
from fmaml.config.load import load_config
from fmaml.config.settings import Config
from fmaml.evaluation import evaluate
from fmaml.modules import from_module as module
from fmaml.outer import init_state, meta_step
from fmaml.tree import is_finite, leaves, map_leaves

CPU, GPU = torch.device("cpu"), "gpu:0"
SAMPLINGS = FunctionType, MethodType, partial


@pytest.fixture(scope="module")
def process_with_a_gpu() -> Iterator[ProcessPoolExecutor]:
    """Autograd counts the devices once in a process, so the GPU needs one that has differentiated nothing yet."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawned, _setup_privateuseone_for_python_backend, ("gpu",)) as pool:
        yield pool


def moved(tree: Any, mode: FakeTensorMode) -> Any:
    """The tree with its tensors, those in modules too, and what names a device, on the GPU."""

    def move(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and not isinstance(leaf, FakeTensor):
            return mode.from_tensor(leaf).to(GPU)
        if isinstance(leaf, nn.Module):
            return leaf._apply(move)
        return torch.device(GPU) if isinstance(leaf, torch.device) else leaf

    return map_leaves(move, tree)


def sampling_on_the_gpu(sample: Any, mode: FakeTensorMode) -> Any:
    """The same sampling from tensors on the GPU: those that it is bound to, or that it closes over."""
    if isinstance(sample, FunctionType):
        cells = tuple(CellType(moved(cell.cell_contents, mode)) for cell in sample.__closure__ or ())
        return FunctionType(sample.__code__, sample.__globals__, sample.__name__, sample.__defaults__, cells)
    if isinstance(sample, partial):
        args = [sampling_on_the_gpu(a, mode) if isinstance(a, SAMPLINGS) else moved(a, mode) for a in sample.args]
        return partial(sample.func, *args, **moved(sample.keywords, mode))
    return getattr(moved(sample.__self__, mode), sample.__name__)


def devices_of(config: Config, folder: str, environment: dict[str, str]) -> set[str]:
    """Where all is that sampling, a meta-step, its check and an evaluation have computed from tensors on the GPU."""
    os.chdir(folder)
    os.environ.update(environment)
    mode, model_of = FakeTensorMode(allow_non_fake_inputs=False), module.model_of
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with patch.object(module, "model_of", lambda skeleton, *rest: model_of(moved(skeleton, mode), *rest)):
        experiment = build(config, CPU)
    source = experiment.source._replace(sample=sampling_on_the_gpu(experiment.source.sample, mode))
    params = experiment.model.init(torch.Generator().manual_seed(0))
    with mode:
        state = init_state(experiment.algorithm, experiment.optimizer, moved(params, mode))
        tasks = source.sample("train", 1, range(4))
        after, metrics = meta_step(experiment.algorithm, experiment.optimizer, state, tasks)
        finite = is_finite((after.theta, after.opt_state, metrics))
        metric_fn = source.settings[0](experiment.model.apply, source.metric.fn)
        scores = evaluate(experiment.algorithm, metric_fn, after.theta, tasks, steps=1)
    return {str(leaf.device) for leaf in leaves((tasks, after.theta, after.opt_state, metrics, finite, scores))}


# Nodes of an exact solution are copied; the size of the largest task is asked for.
WAITING = ("burgers", "molecules", "ratings")
ON_A_GPU = [each for each in EACH if not any(name in str(each.values) for name in WAITING)]


@pytest.mark.parametrize("path", ON_A_GPU, ids=lambda path: f"{path.parent.stem}-{path.stem}")
def test_nothing_waits_for_the_device(path, process_with_a_gpu, tmp_path, monkeypatch, request):
    config = load_config(str(path), smallest(path, tmp_path, monkeypatch, request))
    assert process_with_a_gpu.submit(devices_of, config, os.getcwd(), dict(os.environ)).result() == {GPU}


def wait_for_the_device(name: str) -> None:
    """What must raise in a process with that GPU, or the test above could not fail."""
    with FakeTensorMode(allow_non_fake_inputs=False):
        here = torch.ones(2)
        there = here.to(GPU)
        waits: dict[str, Callable[[], Any]] = {
            "read": lambda: bool(there.sum() > 0),
            "copied": lambda: there.new_tensor(1.0),
            "mixed": lambda: here + there,
        }
        waits[name]()


@pytest.mark.parametrize("name", ["read", "copied", "mixed"])
def test_what_waits_is_found(name, process_with_a_gpu):
    with pytest.raises(RuntimeError):
        process_with_a_gpu.submit(wait_for_the_device, name).result()
