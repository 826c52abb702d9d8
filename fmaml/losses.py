"""Losses and metrics: criteria of (output, y), and the functions of (params, batch) or (params, task) built on them."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn import functional as F

from .torch_fixes.layout import is_vmapped
from .tree import concat, leading, map_leaves, take
from .types import Batch, LossFn, MetricFn, Params, Task

Apply: TypeAlias = Callable[[Params, Any], Tensor]  # (params, x [n, *shape]) -> [n, *output]
Criterion: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # (output [n, *output], y [n, *target]) -> scalar
IGNORED = -1  # the label of a padding row
INDUCTIVE_EXAMPLES = 256  # examples that `inductive` holds in memory at a time


def cross_entropy(logits: Tensor, y: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy in nats, -log softmax(logits)[y].

    Args:
        logits: [n, *positions, classes].
        y: int64 [n, *positions]; negative labels, such as -1 or torch's -100, are ignored, as in `accuracy`. For
            another ``ignore_index`` give ``y.masked_fill(y == ignore_index, -1)``.
        smoothing: the share of a label's probability that all classes get alike, from 0 to 1 (arXiv 1512.00567, 7).

    Returns:
        A scalar. If all labels are ignored it is 0, with gradient 0. Such a task still counts in the mean over a
        meta-batch.

    Raises:
        ValueError: ``y`` is not int64, or its shape is not that of the logits without the last axis.

    >>> import torch, fmaml
    >>> fmaml.cross_entropy(torch.zeros(3, 4), torch.tensor([0, 1, -1]))  # log 4
    tensor(1.3863)
    """
    check_labels("cross_entropy", logits, y)
    rows, labels = logits.flatten(0, -2), y.clamp(min=IGNORED).flatten()
    if is_vmapped(rows) and not smoothing:
        total = nll(rows.log_softmax(-1), labels)
    else:
        total = F.cross_entropy(rows, labels, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing)
    return total / (labels != IGNORED).sum().clamp(min=1)  # torch's mean would be 0 / 0, and its gradient NaN


def nll(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """The sum of -log p(label), with the bits of `F.nll_loss` under vmap, which is slower and imports sympy."""
    of_label = log_probabilities.gather(-1, labels.clamp(min=0)[:, None])[:, 0]
    return -torch.where(labels != IGNORED, of_label, 0).sum()


def bits(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross entropy in bits: the mean code length of a symbol under the model's predictions.

    Args:
        logits: [n, *positions, symbols].
        y: int64 [n, *positions]; negative labels are ignored.

    Returns:
        A scalar; 0 if all labels are ignored, as in `cross_entropy`.

    Raises:
        ValueError: as in `cross_entropy`.

    >>> import torch, fmaml
    >>> fmaml.bits(torch.zeros(3, 4), torch.tensor([0, 1, 2]))
    tensor(2.)
    """
    return cross_entropy(logits, y) / math.log(2)


def mse(output: Tensor, y: Tensor) -> Tensor:
    """Mean squared error over all entries.

    Args:
        output: [n, *target].
        y: [n, *target].

    Returns:
        A scalar.

    Raises:
        ValueError: the shapes differ.

    >>> import torch, fmaml
    >>> fmaml.mse(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [4.0]]))
    tensor(2.)
    """
    if output.shape != y.shape:
        raise ValueError(f"mse: output {list(output.shape)} and y {list(y.shape)} must have the same shape")
    return (output - y).square().mean()


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """The fraction of rows with the largest logit at the label.

    Args:
        logits: [n, classes].
        y: int64 [n]; rows with a negative label are ignored.

    Returns:
        A scalar from 0 to 1, of the logits' type. NaN if all rows are ignored, or if the largest logit of another row
        is not finite: a diverged network has no accuracy.

    Raises:
        ValueError: ``y`` is not int64, or its shape is not that of the logits without the last axis.

    >>> import torch, fmaml
    >>> fmaml.accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 0.0]]), torch.tensor([0, 0, -1]))
    tensor(0.5000)
    """
    check_labels("accuracy", logits, y)
    largest, predicted = logits.max(-1)
    right = torch.where(largest.isfinite(), (predicted == y).to(logits.dtype), torch.nan)
    counts = y >= 0
    return torch.where(counts, right, 0).sum() / counts.sum()


def check_labels(name: str, logits: Tensor, y: Tensor) -> None:
    """ValueError unless there is one int64 label for each row of logits."""
    if y.dtype != torch.int64 or y.shape != logits.shape[:-1]:
        raise ValueError(
            f"{name}: labels y must be int64 {list(logits.shape[:-1])}, one for each row of the logits "
            f"{list(logits.shape)}; these are {str(y.dtype).removeprefix('torch.')} {list(y.shape)}"
        )


def supervised(apply: Apply, criterion: Criterion) -> LossFn:
    """The loss L(params, batch) = criterion(apply(params, x), y).

    Args:
        apply: a model's forward pass, (params, x [n, *shape]) -> [n, *output].
        criterion: (output, y) -> scalar, such as `cross_entropy`.

    Returns:
        (params, batch) -> scalar.

    >>> import torch, fmaml
    >>> loss_fn = fmaml.supervised(lambda params, x: params["w"] * x, fmaml.mse)
    >>> loss_fn({"w": torch.tensor(2.0)}, fmaml.Batch(x=torch.ones(3, 1), y=torch.zeros(3, 1)))
    tensor(4.)
    """

    def loss_fn(params: Params, batch: Batch) -> Tensor:
        return criterion(apply(params, batch.x), batch.y)

    return loss_fn


def transductive(apply: Apply, criterion: Criterion) -> MetricFn:
    """The criterion on the query set with all queries in one forward pass.

    A network with batch norm then also uses the other queries, as in the published MAML results.

    Args:
        apply: a model's forward pass, (params, x [n, *shape]) -> [n, *output].
        criterion: (output, y) -> scalar, such as `accuracy`.

    Returns:
        (params, task) -> scalar, for `fmaml.evaluate`.

    >>> import torch, fmaml
    >>> metric_fn = fmaml.transductive(lambda params, x: x - x.mean(), fmaml.mse)  # uses the mean of the queries
    >>> queries = torch.tensor([[1.0], [3.0]])
    >>> metric_fn({}, fmaml.Task(fmaml.Batch(queries, queries), fmaml.Batch(queries, torch.tensor([[-1.0], [1.0]]))))
    tensor(0.)
    """

    def metric_fn(params: Params, task: Task) -> Tensor:
        return criterion(apply(params, task.query.x), task.query.y)

    return metric_fn


def inductive(apply: Apply, criterion: Criterion, *, looped: bool = False) -> MetricFn:
    """The criterion on the query set with one forward pass for each query, together with the support set.

    A prediction then depends only on the support set and its own example, not on the other queries.

    Args:
        apply: a model's forward pass, (params, x [n, *shape]) -> [n, *output].
        criterion: (output, y) -> scalar, such as `accuracy`.
        looped: run one pass after the other, for a network that vmap cannot run.

    Returns:
        (params, task) -> scalar, for `fmaml.evaluate`.

    >>> import torch, fmaml
    >>> metric_fn = fmaml.inductive(lambda params, x: x - x.mean(), fmaml.mse)  # the mean of support and one query
    >>> support, queries = torch.zeros(1, 1), torch.tensor([[1.0], [3.0]])
    >>> metric_fn({}, fmaml.Task(fmaml.Batch(support, support), fmaml.Batch(queries, queries / 2)))
    tensor(0.)
    """

    def predict(params: Params, support: Any, x: Any) -> Tensor:
        return apply(params, concat([support, map_leaves(lambda leaf: leaf[None], x)]))[-1]

    def metric_fn(params: Params, task: Task) -> Tensor:
        if looped:
            each = [predict(params, task.support.x, take(task.query.x, i)) for i in range(leading(task.query.x))]
            return criterion(torch.stack(each), task.query.y)
        queries_at_once = max(1, INDUCTIVE_EXAMPLES // (leading(task.support.x) + 1))
        outputs = vmap(predict, (None, None, 0), chunk_size=queries_at_once)(params, task.support.x, task.query.x)
        return criterion(outputs, task.query.y)

    return metric_fn
