"""Dropout by explicit keys (Srivastava et al., JMLR 15, 2014): each example has a key that decides which numbers drop.

So a forward pass stays a pure function, equal for any batching of tasks and with derivatives of any order. Random
numbers come from counters, not from a generator's state (`fmaml.rng`).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..rng import fold, signed, uniform
from ..torch_fixes.functions import TorchFunction
from ..tree import leaves
from ..types import Batch, Task


class Keyed(NamedTuple):
    """Examples with the keys of their dropout, to train a model of ``from_module(.., dropout="keyed")``.

    >>> import torch, fmaml
    >>> layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
    >>> model = fmaml.from_module(layers, dropout="keyed")
    >>> params, x, keys = model.init(torch.Generator()), torch.ones(3, 2), torch.arange(3)
    >>> dropped = model.apply(params, fmaml.Keyed(x, keys))
    >>> torch.equal(dropped, model.apply(params, fmaml.Keyed(x, keys)))
    True
    """

    x: Any  # a tensor [n, ..], or a dict or tuple of tensors
    keys: Tensor  # int64 [n]


def with_keys(tasks: Task, *, seed: int, step: int, first: int = 0) -> Task:
    """Stacked tasks with `Keyed` x: other keys for each seed, meta-step, task, set and example.

    All inner steps of a task drop the same numbers, because they get the same support set.

    Args:
        tasks: stacked tasks, every tensor [tasks, n, ..].
        seed: the seed of the training.
        step: the meta-step.
        first: the number of the first task, if a process has only a part of a meta-batch.

    >>> import torch, fmaml
    >>> batch = fmaml.Batch(torch.ones(2, 3, 4), torch.zeros(2, 3, 1))
    >>> fmaml.with_keys(fmaml.Task(batch, batch), seed=0, step=1).query.x.keys.shape
    torch.Size([2, 3])
    """
    start = fold(signed(seed), step)

    def keyed(batch: Batch, which: int) -> Batch:
        tasks, examples = leaves(batch.x)[0].shape[:2]
        device = batch.y.device
        of_task = fold(fold(start, torch.arange(first, first + tasks, device=device)), which)
        return batch._replace(x=Keyed(batch.x, fold(of_task[:, None], torch.arange(examples, device=device))))

    return Task(keyed(tasks.support, 0), keyed(tasks.query, 1))


# the number of last axes of an input that are dropped together
SHARED_AXES: dict[TorchFunction, Callable[[Tensor], int]] = {
    F.dropout: lambda x: 0,
    torch.dropout: lambda x: 0,
    F.dropout1d: lambda x: 1,
    F.dropout2d: lambda x: 1 if x.ndim == 3 else 2,  # torch's takes three axes for [n, channels, length]
    F.dropout3d: lambda x: 3,
}


def dropouts(keys: Tensor | None) -> dict[TorchFunction, TorchFunction]:
    """Torch's dropout functions for one forward pass, with the random bits of these keys; other bits for each call.

    Without keys they drop nothing.
    """
    calls = iter(range(2**63))

    def dropping(shared_axes: Callable[[Tensor], int]) -> TorchFunction:
        def drop(
            input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, train: bool = True
        ) -> Tensor:
            if keys is None or not training or not train or p == 0:  # torch's name is train, that of F is training
                return input
            axes = shared_axes(input)
            random = numbers_of(keys, next(calls), (*input.shape[: input.ndim - axes], *[1] * axes))
            return torch.where(random >= p, input, 0) / (1 - p if p < 1 else 1)

        return drop

    return {function: dropping(shared_axes) for function, shared_axes in SHARED_AXES.items()}


def numbers_of(keys: Tensor, call: int, shape: tuple[int, ...]) -> Tensor:
    """Uniform random numbers in [0, 1) of this shape, for this call of a forward pass.

    If the shape has one row for each example, a row depends on its example's key. Otherwise all numbers depend on the
    sum of the keys.
    """
    if len(shape) > 0 and shape[0] == len(keys):
        row_keys, width = keys[:, None], math.prod(shape[1:])
    else:
        row_keys, width = keys.sum()[None, None], math.prod(shape)
    return uniform(fold(fold(row_keys, call), torch.arange(width, device=keys.device))).reshape(shape)
