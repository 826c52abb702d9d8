"""Every interface of the library on one page.

Slides and code, symbol by symbol (Finn, Abbeel and Levine, arXiv 1703.03400):

- theta               meta-parameters, learnt by the outer loop
- phi_i               parameters of task i, computed from theta by the inner loop
- D_i^tr, D_i^ts      ``task.support``, ``task.query``
- N, K                ``ways``, ``shots``; ``queries`` is the number of query examples for each class
- alpha, beta         ``inner_lr``, ``outer_lr``
- theta -> phi_i      ``adapt``; phi_0 .. phi_K is the ``trajectory``

A trailing comment such as ``[n, *shape]`` gives the axes of a tensor. Stacked tasks have one more leading axis,
``tasks``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from torch import Generator, Tensor

from .tree import leaves

Params: TypeAlias = dict[str, Tensor]  # dotted names, as in a state_dict
Theta: TypeAlias = Any  # any tree of tensors; for MAML it is a Params
OptState: TypeAlias = Any  # any tree of tensors
Metrics: TypeAlias = dict[str, Tensor]  # scalars (per task: [tasks])
ThetaT = TypeVar("ThetaT")
ThetaT_contra = TypeVar("ThetaT_contra", contravariant=True)


class Batch(NamedTuple):
    """Examples of one task.

    >>> import torch, fmaml
    >>> fmaml.Batch(x=torch.zeros(5, 1, 28, 28), y=torch.arange(5)).x.shape
    torch.Size([5, 1, 28, 28])
    """

    x: Any  # a tensor [n, *shape], or a dict or tuple of such tensors that the model takes
    y: Tensor  # [n, *target]


class Task(NamedTuple):
    """One task; or stacked tasks, with a leading axis ``tasks`` in every tensor.

    >>> import torch, fmaml
    >>> support, query = (fmaml.Batch(torch.zeros(16, n, 1), torch.zeros(16, n, 1)) for n in (5, 15))
    >>> fmaml.Task(support, query).query.x.shape  # 16 tasks
    torch.Size([16, 15, 1])
    """

    support: Batch  # D^tr, to adapt to the task
    query: Batch  # D^ts, to evaluate the adapted model


LossFn: TypeAlias = Callable[[Params, Batch], Tensor]  # -> scalar
MetricFn: TypeAlias = Callable[[Params, Task], Any]  # -> scalar, or a dict of scalars


class Model(NamedTuple):
    """A network as two pure functions.

    >>> import torch, fmaml
    >>> linear = fmaml.Model(
    ...     init=lambda generator: {"weight": torch.randn(3, 2, generator=generator)},
    ...     apply=lambda params, x: x @ params["weight"].T,
    ... )
    >>> linear.apply(linear.init(torch.Generator()), torch.zeros(7, 2)).shape
    torch.Size([7, 3])
    """

    init: Callable[[Generator], Params]
    apply: Callable[[Params, Any], Tensor]  # params, x [n, *shape] -> [n, *output]


class TrajectoryFn(Protocol[ThetaT_contra]):
    """(theta, support[, steps]) -> [phi_0, .., phi_steps]; by default as many steps as in training."""

    def __call__(self, theta: ThetaT_contra, support: Batch, steps: int = ..., /) -> list[Params]: ...


class Algorithm(NamedTuple, Generic[ThetaT]):
    """A meta-learner as pure functions of one task; `fmaml.meta_step` adds gradient, mean and vmap.

    ``loss`` returns a scalar and metrics. The gradient of the scalar is the task's meta-gradient. The scalar may be a
    surrogate; the metric ``query_loss`` is always the true query loss.

    Without ``trajectory`` only the adapted parameters can be reported. ``at(step)`` is the algorithm at that meta-step,
    if its loss changes during training. ``predicts(task, k)`` is the task with the query set that phi_k is scored on,
    if it is not the task's own.

    >>> import fmaml
    >>> def loss(theta, task):  # one network for all tasks, adapted to none
    ...     query = (theta["w"] * task.query.x - task.query.y).square().mean()
    ...     return query, {"query_loss": query}
    >>> joint = fmaml.Algorithm(init=dict, adapt=lambda theta, support: theta, loss=loss)
    """

    init: Callable[[Params], ThetaT]
    adapt: Callable[[ThetaT, Batch], Params]
    loss: Callable[[ThetaT, Task], tuple[Tensor, Metrics]]
    trajectory: TrajectoryFn[ThetaT] | None = None
    at: Callable[[int], Algorithm[ThetaT]] | None = None
    predicts: Callable[[Task, int], Task] | None = None


class Transform(NamedTuple):
    """A map of gradients, such as clipping; `fmaml.chain` puts it before an optimizer.

    >>> import torch, fmaml
    >>> def signs(grads, state, theta):
    ...     return {name: g.sign() for name, g in grads.items()}, state
    >>> sign_descent = fmaml.chain(fmaml.Transform(lambda theta: (), signs), fmaml.sgd(0.5))
    >>> theta = {"p": torch.tensor(1.0)}
    >>> sign_descent.step({"p": torch.tensor(7.0)}, sign_descent.init(theta), theta)[0]
    {'p': tensor(0.5000)}
    """

    init: Callable[[Theta], OptState]
    update: Callable[[Theta, OptState, Theta], tuple[Theta, OptState]]  # grads, state, theta -> grads, state


class Optimizer(NamedTuple):
    """A pure optimizer, for the inner or the outer loop.

    >>> import torch, fmaml
    >>> def step(grads, state, theta):
    ...     return {name: p - 0.5 * grads[name] for name, p in theta.items()}, state
    >>> fmaml.Optimizer(lambda theta: (), step).step({"p": torch.tensor(2.0)}, (), {"p": torch.tensor(8.0)})[0]
    {'p': tensor(7.)}
    """

    init: Callable[[Theta], OptState]
    step: Callable[[Theta, OptState, Theta], tuple[Theta, OptState]]  # grads, opt_state, theta -> theta, opt_state


class MetaState(NamedTuple):
    """The state that the next meta-step needs.

    >>> import torch, fmaml
    >>> fmaml.MetaState(theta={"p": torch.tensor(1.0)}, opt_state=(), step=0)._replace(step=1).step
    1
    """

    theta: Theta
    opt_state: OptState
    step: int

    def __repr__(self) -> str:
        tensors = leaves(self.theta)
        numbers = sum(tensor.numel() for tensor in tensors)
        return f"MetaState(step {self.step}, theta: {len(tensors)} tensors, {numbers:,} numbers)"


Rates: TypeAlias = Mapping[str, float | Tensor]  # parameter name -> a number, or a tensor of its shape
InnerRate: TypeAlias = float | Tensor | Rates | Optimizer
