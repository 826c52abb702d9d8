"""Sinusoid regression, the first experiment of MAML (arXiv 1703.03400, section 5.1): a task is a sine wave."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ...losses import Apply, mse, transductive
from ...rng import fold, uniform
from ...setting_types import Size
from ...types import Batch, Params, Task
from ..source import Metric, Source, task_keys

_AMPLITUDE, _PHASE, _X = (0.1, 5.0), (0.0, math.pi), (-5.0, 5.0)  # ranges, uniform
MSE = Metric("MSE", mse, ".3f", more_is_better=False)


def sinusoid(*, seed: int, device: torch.device, shots: Size = 10, queries: Size = 10) -> Source:
    """Waves y = A sin(x - phi), A in [0.1, 5], phi in [0, pi], with ``shots`` points x in [-5, 5].

    Returns a source of tasks: support x and y float32 [tasks, shots, 1], query x and y float32 [tasks, queries, 1], on
    ``device``. Amplitude A, phase phi and x are uniform. Tasks depend only on ``seed``. The metric is the mean squared
    error.

    Finn, Abbeel and Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017, section
    5.1.
    """

    about = {
        "data": "sinusoid",
        "task": f"{shots}-shot sinusoid regression",
        "protocol": f"{shots}-shot sinusoid regression, {queries} queries, fresh waves",
    }
    sample = partial(_sample, seed, device, shots, queries)
    return Source(sample, (1,), 1, about, _save_functions, mse, MSE, (transductive,))


def _sample(seed: int, device: torch.device, shots: int, queries: int, split: str, step: int, tasks: range) -> Task:
    """Draw stacked tasks. Counter 0 of a task's key gives its amplitude, 1 its phase, the others its points."""
    counters = torch.arange(2 + shots + queries, device=device)
    u = uniform(fold(task_keys(seed, split, step, tasks, device)[:, None], counters))  # [tasks, counters]
    amplitude, phase, x = (
        low + (high - low) * part
        for (low, high), part in zip((_AMPLITUDE, _PHASE, _X), (u[:, :1], u[:, 1:2], u[:, 2:]), strict=True)
    )
    x, y = x[..., None].float(), (amplitude * torch.sin(x - phase))[..., None].float()  # [tasks, points, 1]
    return Task(Batch(x[:, :shots], y[:, :shots]), Batch(x[:, shots:], y[:, shots:]))


def _save_functions(folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
    """Write functions.png: the truth, the support points, and the network before and after inner steps."""
    from ..pictures import save_functions  # imported here because matplotlib takes half a second

    x = torch.linspace(*_X, 201, device=tasks[0].query.x.device)[:, None]
    truths = [fit_wave(task.query)(x) for task in tasks]
    save_functions(folder / "functions.png", tasks, phis, apply, x, truths)


def fit_wave(batch: Batch) -> Callable[[Tensor], Tensor]:
    """Fit a wave to the points by least squares: A sin(x - phi) = a sin(x) + b cos(x) is linear in a and b."""

    def basis(x: Tensor) -> Tensor:
        return torch.cat([x.sin(), x.cos()], -1)  # [n, 2]

    coefficients = torch.linalg.lstsq(basis(batch.x.double()), batch.y.double()).solution  # [2, 1]
    return lambda x: basis(x.double()) @ coefficients
