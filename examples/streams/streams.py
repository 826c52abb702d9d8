"""Streams of numbers and of symbols that change while they are read."""

import torch
from torch import Tensor

import fmaml
from fmaml.data import Metric, Source, task_keys
from fmaml.rng import fold, uniform
from fmaml.setting_types import Size, gives

SQUARED_ERROR = Metric("squared error", fmaml.mse, ".3f", more_is_better=False)
BITS = Metric("bits per symbol", fmaml.bits, ".3f", more_is_better=False)


@gives("numbers", "single_targets")
def drifting_wave(
    *, seed: int, device: torch.device, shots: Size = 64, queries: Size = 4, drift: float = 3.0
) -> Source:
    """Points of y = A sin(x - phi) in order, while phi grows by ``drift`` from the first point to the last."""
    points = shots + queries

    def sample(split: str, step: int, tasks: range) -> fmaml.Task:
        keys = task_keys(seed, split, step, tasks, device)  # [tasks]
        u = uniform(fold(keys[:, None], torch.arange(2 + points, device=device)))  # A, phi, and the points
        amplitude, phase, x = 0.1 + 4.9 * u[:, :1], torch.pi * u[:, 1:2], 10 * u[:, 2:] - 5
        time = torch.linspace(0, 1, points, device=device)
        y = amplitude * torch.sin(x - phase - drift * time)
        return in_order(x[..., None].float(), y[..., None].float(), shots)

    about = {"task": "drifting waves", "protocol": f"{points} points in order, the phase drifts by {drift:g}"}
    source = Source(sample, (1,), 1, about, criterion=fmaml.mse, metric=SQUARED_ERROR)
    return source._replace(settings=(fmaml.transductive,))


@gives("symbols")
def changing_language(
    *, seed: int, device: torch.device, symbols: Size = 8, shots: Size = 15, queries: Size = 1, length: Size = 32
) -> Source:
    """A random Markov chain over ``symbols``, in passages of ``length``; half-way another chain takes over."""
    passages = shots + queries

    def sample(split: str, step: int, tasks: range) -> fmaml.Task:
        keys = task_keys(seed, split, step, tasks, device)
        slots = torch.arange(2 * symbols**2, device=device)
        scores = 8 * uniform(fold(fold(keys, 0)[:, None], slots)).view(len(tasks), 2, symbols, symbols)
        draws = uniform(fold(fold(keys, 1)[:, None], torch.arange(passages * length + 1, device=device)))
        stream = walk(scores.softmax(-1), draws)  # [tasks, passages * length + 1]
        x, y = (part.reshape(len(tasks), passages, length) for part in (stream[:, :-1], stream[:, 1:]))
        return in_order(x, y, shots)

    about = {"task": "languages that change", "protocol": f"{passages} passages of {length} symbols, changed half-way"}
    source = Source(sample, (length,), symbols, about, metric=BITS)
    return source._replace(settings=(fmaml.transductive,))


def walk(tables: Tensor, draws: Tensor) -> Tensor:
    """Symbols int64 [tasks, n] by ``draws`` [tasks, n] in [0, 1): the first of two chains, half-way the second.

    ``tables`` are probabilities [tasks, 2, symbols, symbols].
    """
    tasks, symbols = torch.arange(len(draws), device=draws.device), tables.shape[-1]
    cumulative = tables.cumsum(-1)[..., :-1].contiguous()
    found = [(symbols * draws[:, 0]).long()]
    for i in range(1, draws.shape[1]):
        row = cumulative[tasks, 2 * i // draws.shape[1], found[-1]]
        found.append((draws[:, i, None] >= row).sum(-1))
    return torch.stack(found, 1)


def in_order(x: Tensor, y: Tensor, shots: int) -> fmaml.Task:
    """Tasks with the first ``shots`` examples to read, and the others to predict."""
    return fmaml.Task(fmaml.Batch(x[:, :shots], y[:, :shots]), fmaml.Batch(x[:, shots:], y[:, shots:]))
