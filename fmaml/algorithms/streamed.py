"""Learning while reading a stream, trained end to end (TTT-E2E, arXiv 2512.23675, section 2).

phi_0 = theta;    for each chunk c_k of the stream:
  loss_k = L(phi_k-1, c_k)                               each chunk is predicted before it is learnt
  phi_k  = phi_k-1 - alpha * grad L(phi_k-1, c_k)
the meta-objective:    min over theta of the mean of loss_k over all chunks

A task's support set is the chunks that are predicted and learnt, in order. Its query set is the chunk after them, which
is predicted. So ``adapt`` reads the support set, as it does everywhere.
"""

from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

from torch import Tensor

from ..inner import Mask, as_optimizer, check_steps, inner_rule, loss_of_part, select
from ..remat import parts, recomputed
from ..setting_types import Rate, Rule, Steps
from ..torch_fixes.grad_levels import grad_and_value, with_gradient
from ..tree import detach, leading, leaves, map_leaves, take
from ..types import Algorithm, Batch, InnerRate, LossFn, Metrics, OptState, Params, Task

Reading: TypeAlias = tuple[Params, OptState, Tensor]  # the adapted part of phi_k, its rule's state, the sum of losses


def streamed(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | InnerRate,
    chunks: Steps,
    first_order: bool = False,
    only: Sequence[str] = ("*",),
    inner: Rule = "sgd",
    remat: bool = True,
) -> Algorithm[Params]:
    """Learn an initialisation that learns best while it reads: one inner step on each chunk, after predicting it.

    Args:
        loss_fn: (params, batch) -> scalar, the mean over a chunk's examples.
        inner_lr: alpha, as in `fmaml.maml`.
        chunks: the number of parts of the support set, which are read in the order of its examples. 0 learns nothing.
        first_order: treat inner gradients as constants.
        only: shell patterns of the names of the adapted parameters, such as the last quarter of a network.
        inner: the rule of the inner steps, as in `fmaml.maml`.
        remat: keep about ``2 * sqrt(chunks)`` copies of the adapted parameters and the graph of one chunk, and run
            inner steps again. Without it, the graph of every chunk is kept. The loss can then be differentiated any
            number of times.

    Returns:
        The algorithm; its theta is the parameters. ``loss`` is the mean over ``chunks + 1`` chunks. `fmaml.evaluate`
        scores each of phi_0 .. phi_chunks on the chunk that comes next, so its columns are positions in the stream.
        Further steps read the stream again.

    Raises:
        ValueError: an unknown ``inner``, or ``chunks`` is not a natural number; on use: the support set does not divide
            into equal chunks, or as `maml`.

    Source: arXiv 2512.23675, section 2.2.

    >>> import torch, fmaml
    >>> def loss_fn(params, batch):
    ...     return 0.5 * (params["p"] - batch.y).square().mean()
    >>> y = torch.tensor([4.0, 2.0])  # two chunks to read; then 2.0 is predicted
    >>> task = fmaml.Task(fmaml.Batch(y, y), fmaml.Batch(y[1:], y[1:]))
    >>> algorithm = fmaml.streamed(loss_fn, inner_lr=0.5, chunks=2)
    >>> [float(phi["p"]) for phi in algorithm.trajectory({"p": torch.tensor(0.0)}, task.support)]
    [0.0, 2.0, 2.0]
    >>> float(algorithm.loss({"p": torch.tensor(0.0)}, task)[0])  # the mean of 8, 0 and 0
    2.6666667461395264
    """
    check_steps(chunks, "chunks")
    rule, only = as_optimizer(inner_rule(inner, inner_lr)), Mask(only)

    def first(theta: Params) -> Reading:
        part = select(theta, only)
        return part, rule.init(part), leaves(part)[0].new_zeros(())

    def read(theta: Params, reading: Reading, chunk: Batch) -> Reading:
        part, state, losses = reading
        grads, loss = grad_and_value(loss_of_part(loss_fn, theta))(part, chunk)  # one pass predicts c_k and learns it
        part, state = rule.step(detach(grads) if first_order else grads, state, part)
        return part, state, losses + loss

    def mean_loss(theta: Params, task: Task) -> tuple[Tensor, Metrics]:
        stream = cut(task.support, chunks)

        def step(k: int, theta: Params, reading: Reading) -> Reading:
            return read(theta, reading, take(stream, k))

        def last(theta: Params, reading: Reading) -> Tensor:
            part, _, losses = reading
            return (losses + loss_fn({**theta, **part}, task.query)) / (chunks + 1)

        if remat:
            value, gradient = recomputed(first, step, last, theta, parts(chunks, keep_all=0))
            return with_gradient(value, gradient, theta), {"query_loss": value}
        reading = first(theta)
        for k in range(chunks):
            reading = step(k, theta, reading)
        loss = last(theta, reading)
        return loss, {"query_loss": loss}

    def phis(theta: Params, support: Batch, steps: int = chunks) -> list[Params]:
        stream, found = cut(support, chunks), [first(theta)]
        for k in range(steps):
            found.append(read(theta, found[-1], take(stream, k % chunks)) if chunks else found[-1])
        return [{**theta, **part} for part, _, _ in found]

    def adapt(theta: Params, support: Batch) -> Params:
        stream, reading = cut(support, chunks), first(theta)
        for k in range(chunks):
            reading = read(theta, reading, take(stream, k))
        return {**theta, **reading[0]}

    return Algorithm(dict, adapt, mean_loss, phis, predicts=partial(next_chunk, chunks))


def cut(stream: Batch, chunks: int) -> Batch:
    """A stream [n, ...] as ``chunks`` equal chunks in its order: [chunks, n / chunks, ...]; ValueError if unequal."""
    examples = leading(stream)
    if chunks and (examples % chunks or not examples):
        found = f"chunks = {chunks}: the support set has {examples} example{'s' * (examples != 1)}"
        raise ValueError(f"streamed: {found}, which must divide into equal chunks; give a divisor, or more examples")
    return map_leaves(lambda x: x.reshape(chunks, -1, *x.shape[1:]), stream) if chunks else stream


def next_chunk(chunks: int, task: Task, k: int) -> Task:
    """The task with the chunk that phi_k predicts as its query set: the next one of the support set, or the last."""
    return task if k >= chunks else task._replace(query=take(cut(task.support, chunks), k))
