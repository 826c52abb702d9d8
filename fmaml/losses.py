"""Losses and metrics: a criterion of (output, y), made into a function of (params, batch) or (params, task)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn import functional as F

from .types import Batch, LossFn, MetricFn, Params, Task

Apply = Callable[[Params, Tensor], Tensor]
Criterion = Callable[[Tensor, Tensor], Tensor]  # (output [n, *output], y [n, *target]) -> scalar
IGNORED = -1  # the label of a row that only fills up a batch


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross entropy in nats; ``logits`` [n, *positions, classes], ``y`` int64 [n, *positions].

    Rows with label -1 do not count.
    """
    return F.cross_entropy(logits.flatten(0, -2), y.flatten(), ignore_index=IGNORED)


def bits(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross entropy in bits: what a symbol costs under the best code for the model."""
    return cross_entropy(logits, y) / math.log(2)


def mse(output: Tensor, y: Tensor) -> Tensor:
    """Mean squared error over all entries; both [n, *target]. Raises ValueError if their shapes differ."""
    if output.shape != y.shape:
        raise ValueError(f"mse: output {list(output.shape)} and y {list(y.shape)} must have the same shape")
    return (output - y).square().mean()


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """The fraction of rows whose largest logit is the label's; ``logits`` [n, classes], ``y`` int64 [n].

    Rows with label -1 do not count.
    """
    right = (logits.argmax(-1) == y).to(logits.dtype).sum()
    return right / (y != IGNORED).sum()


TOGETHER = 256  # examples of a task that `inductive` has in memory at a time


def supervised(apply: Apply, criterion: Criterion) -> LossFn:
    """The loss L(params, batch) = criterion(apply(params, x), y)."""

    def loss_fn(params: Params, batch: Batch) -> Tensor:
        return criterion(apply(params, batch.x), batch.y)

    return loss_fn


def transductive(apply: Apply, criterion: Criterion) -> MetricFn:
    """The criterion on the query set with all queries in one forward pass.

    A network that normalises by batch statistics then sees the other queries too, as in the published MAML numbers.
    """

    def metric_fn(params: Params, task: Task) -> Tensor:
        return criterion(apply(params, task.query.x), task.query.y)

    return metric_fn


def inductive(apply: Apply, criterion: Criterion) -> MetricFn:
    """The criterion on the query set with each query alone beside the support set in its own forward pass.

    What a prediction can use is then the support set and the one example, never the other queries.
    """

    def predict(params: Params, support: Tensor, x: Tensor) -> Tensor:
        return apply(params, torch.cat([support, x[None]]))[-1]

    def metric_fn(params: Params, task: Task) -> Tensor:
        few = max(1, TOGETHER // (len(task.support.x) + 1))
        outputs = vmap(predict, (None, None, 0), chunk_size=few)(params, task.support.x, task.query.x)
        return criterion(outputs, task.query.y)

    return metric_fn
