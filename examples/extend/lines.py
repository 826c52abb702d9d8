"""Lines y = a x + b, seen at a few points."""

import torch

import fmaml
from fmaml.data import Metric, Source, task_keys
from fmaml.rng import fold, uniform
from fmaml.setting_types import Size, gives

SQUARED_ERROR = Metric("squared error", fmaml.mse, ".4f", more_is_better=False)


@gives("numbers", "single_targets")
def lines(
    *,
    seed: int,
    device: torch.device,
    shots: Size = 5,
    queries: Size = 10,
) -> Source:
    """Lines y = a x + b with a and b in [-1, 1], seen at ``shots`` points."""

    def sample(split: str, step: int, tasks: range) -> fmaml.Task:
        keys = task_keys(seed, split, step, tasks, device)  # [tasks]
        slots = torch.arange(2 + shots + queries, device=device)  # a, b, and the points
        u = 2 * uniform(fold(keys[:, None], slots)) - 1  # [tasks, slots]
        a, b, x = u[:, :1], u[:, 1:2], u[:, 2:]
        x, y = x[..., None].float(), (a * x + b)[..., None].float()
        support = fmaml.Batch(x[:, :shots], y[:, :shots])  # x and y [tasks, points, 1]
        return fmaml.Task(support, fmaml.Batch(x[:, shots:], y[:, shots:]))

    task = f"{shots}-shot lines"
    about = {"task": task, "protocol": f"{task}, {queries} queries, fresh lines"}
    source = Source(sample, (1,), 1, about, criterion=fmaml.mse, metric=SQUARED_ERROR)
    return source._replace(settings=(fmaml.transductive,))
