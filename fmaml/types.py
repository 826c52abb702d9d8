"""Every interface of the library on one page.

Slides and code, symbol by symbol (Finn, Abbeel and Levine, arXiv 1703.03400):

    theta                meta-parameters: what the outer loop learns
    phi_i                task parameters: what the inner loop makes of theta for task i
    D_i^tr, D_i^ts       ``task.support``, ``task.query``
    N, K                 ``ways``, ``shots``; ``queries`` is the number of query examples a class
    alpha, beta          ``inner_lr``, ``outer_lr``
    theta -> phi_i       ``adapt``; phi_0 .. phi_K is the ``trajectory``

A trailing comment such as ``[n, *shape]`` gives the axes of a tensor. Stacked tasks are the same tuples with one
more leading axis, ``tasks``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Generator, Tensor

Params = dict[str, Tensor]  # dotted names, as in a state_dict
Theta = Any  # any tree of tensors; for MAML it is a Params
Metrics = dict[str, Tensor]  # scalars (per task: [tasks])


class Batch(NamedTuple):
    """Examples of one task."""

    x: Tensor  # [n, *shape]
    y: Tensor  # [n, *target]


class Task(NamedTuple):
    """One task, or stacked tasks: then every tensor has a leading axis ``tasks``."""

    support: Batch  # D^tr: what the task may be adapted on
    query: Batch  # D^ts: what the adapted model is judged by


LossFn = Callable[[Params, Batch], Tensor]  # -> scalar
MetricFn = Callable[[Params, Task], Any]  # -> scalar, or a dict of scalars


class Model(NamedTuple):
    """A network as two pure functions."""

    init: Callable[[Generator], Params]
    apply: Callable[[Params, Tensor], Tensor]  # params, [n, *shape] -> [n, *output]


class Algorithm(NamedTuple):
    """A meta-learner as pure functions of one task; `fmaml.meta_step` supplies gradient, mean and vmap.

    ``loss`` returns the scalar whose gradient is the task's meta-gradient, and metrics, of which ``query_loss`` is
    always the true query loss (the scalar may be a surrogate). ``trajectory(theta, support[, steps])`` gives
    [phi_0, .., phi_steps], by default as many steps as trained with; without it only the last can be reported.
    ``at(step)`` is the algorithm as it is at that meta-step, where its loss changes during training.
    """

    init: Callable[[Params], Theta]
    adapt: Callable[[Theta, Batch], Params]
    loss: Callable[[Theta, Task], tuple[Tensor, Metrics]]
    trajectory: Callable[..., list[Params]] | None = None
    at: "Callable[[int], Algorithm] | None" = None


class Transform(NamedTuple):
    """A map of gradients, such as clipping: what `fmaml.chain` puts before an optimizer."""

    init: Callable[[Theta], Any]
    update: Callable[[Theta, Any, Theta], tuple[Theta, Any]]  # grads, state, theta -> grads, state


class Optimizer(NamedTuple):
    """A pure optimizer, for the inner and the outer loop alike."""

    init: Callable[[Theta], Any]
    update: Callable[[Theta, Any, Theta], tuple[Theta, Any]]  # grads, opt_state, theta -> theta, opt_state


class MetaState(NamedTuple):
    """All that the next meta-step needs."""

    theta: Theta
    opt_state: Any
    step: int
