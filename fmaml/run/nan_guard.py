"""NaN and infinity end at the meta-step in which they arise.

A meta-step is a pure function, so its outer update counts only once it is accepted: a state that is not finite is
thrown away, and the one before it stands. Where, exactly, is worked out only then, task by task.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import RunFailed
from ..outer import at_step, trajectory_of
from ..tree import leaves, take
from ..types import Algorithm, MetaState, Metrics, Task
from .step import StepFn

CURE = "lower optimizer.lr or algorithm.inner_lr, set train.clip, or look at that task's data"


class Bad(NamedTuple):
    """A meta-step whose result was thrown away, and the step it would have followed."""

    before: MetaState
    tasks: Task


class Guard:
    """A step function that accepts finite states only.

    On a CPU every step is judged at once. On a GPU, where reading the verdict would make it wait, it is read after
    the next step has been launched; `settle` reads what is still open and must come before a state is used.
    """

    def __init__(self, step_fn: StepFn, algorithm: Algorithm, on_nan: str, skip_limit: int) -> None:
        self.step_fn, self.algorithm = step_fn, algorithm
        self.skips = skip_limit if on_nan == "skip" else 0
        self.open: tuple[Tensor, Bad] | None = None

    def __call__(self, state: MetaState, tasks: Task, skipped: int) -> tuple[MetaState, Metrics, str]:
        """The next state and metrics, and why the step was skipped ("": it was not)."""
        new, metrics = self.step_fn(state, tasks)
        verdict, bad = finite((new.theta, new.opt_state, metrics["query_loss"])), Bad(state, tasks)
        self.settle()
        if self.late(verdict):
            self.open = verdict, bad
        elif not verdict:
            if skipped >= self.skips:
                self.fail(bad, skipped)
            return state._replace(step=new.step), metrics, where(self.algorithm, bad)
        return new, metrics, ""

    def late(self, verdict: Tensor) -> bool:
        """Whether reading the verdict now would make a device wait. To skip a step it must be known at once."""
        return verdict.device.type != "cpu" and not self.skips

    def settle(self) -> None:
        """Read the verdict that is still open."""
        (verdict, bad), self.open = self.open or (True, None), None
        if bad and not verdict:
            self.fail(bad, 0)

    def settled(self, work: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The same work, done once no verdict is open."""

        def after(progress: Any) -> Any:
            self.settle()
            return work(progress)

        return after

    def fail(self, bad: Bad, skipped: int) -> None:
        after = f", after {skipped} steps skipped (train.skip_limit)" if skipped else ""
        raise RunFailed(f"meta-step {bad.before.step + 1}: {where(self.algorithm, bad)}{after}; {CURE}")


def finite(tree: Any) -> Tensor:
    """Whether no number in the tree is NaN or infinite: one flag, on the tree's device."""
    return torch.cat([leaf.detach().flatten() for leaf in leaves(tree)]).isfinite().all()


def where(algorithm: Algorithm, bad: Bad) -> str:
    """The first place at which a number is not finite: the batch, an inner step, the query loss, the gradient."""
    theta, tasks, algorithm = bad.before.theta, bad.tasks, at_step(algorithm, bad.before.step)
    for task in range(len(leaves(tasks)[0])):
        if found := _in_task(algorithm, theta, take(tasks, task)):
            return f"task {task}, {found}"
    return "the outer update is not finite, though every task is"


def _in_task(algorithm: Algorithm, theta: Any, task: Task) -> str:
    for part in ("support", "query"):
        for name, values in getattr(task, part)._asdict().items():
            if not finite(values):
                return f"{part} {name}: the batch holds {_kind(values)}"
    phis = trajectory_of(algorithm, theta, task.support)
    for k, phi in enumerate(phis):
        if not finite(phi):
            return f"inner step {k}: the adapted parameters hold {_kind(phi)}"
    loss = algorithm.loss(theta, task)[1]["query_loss"]
    if not finite(loss):
        return f"after inner step {len(phis) - 1}: the query loss is {_kind(loss)}"
    gradient = torch.func.grad(lambda theta: algorithm.loss(theta, task)[0])(theta)
    return "" if finite(gradient) else f"after inner step {len(phis) - 1}: the meta-gradient holds {_kind(gradient)}"


def _kind(tree: Any) -> str:
    return "NaN" if any(leaf.isnan().any() for leaf in leaves(tree)) else "infinity"
