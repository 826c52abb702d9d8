"""NaN and infinity end at the meta-step in which they arise.

A meta-step is a pure function, so its outer update counts only once it is accepted: a state that is not finite is
thrown away, and the one before it stands. Where, exactly, is worked out only then, task by task.
"""

from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from ..config.settings import TrainSettings
from ..errors import RunFailed
from ..outer import at_step, trajectory_of
from ..tree import leaves, take
from ..types import Algorithm, MetaState, Metrics, Task, Theta
from .step import StepFn

SMALLER_STEPS = "lower optimizer.lr or algorithm.inner_lr, set train.clip, or look at that task's data"


class Inputs(NamedTuple):
    """What a meta-step was given."""

    before: MetaState
    tasks: Task


class NanGuard:
    """A step function that accepts finite states only.

    On a CPU every step is judged at once. On a GPU, where reading the verdict would make it wait, it is read after
    the next step has been launched; `settle` reads what is still open and must come before a state is used.
    """

    def __init__(self, step_fn: StepFn, algorithm: Algorithm[Any], settings: TrainSettings) -> None:
        self.step_fn, self.algorithm = step_fn, algorithm
        self.skips = settings.skip_limit if settings.on_nan == "skip" else 0
        self.unread: tuple[Tensor, Inputs] | None = None  # the last verdict

    def __call__(self, state: MetaState, tasks: Task, skipped: int) -> tuple[MetaState, Metrics, str]:
        """The next state and metrics, and why the step was skipped ("": it was not)."""
        new, metrics = self.step_fn(state, tasks)
        verdict, inputs = is_finite((new.theta, new.opt_state, metrics["query_loss"])), Inputs(state, tasks)
        self.settle()
        if self.must_wait_for(verdict):
            self.unread = verdict, inputs
        elif not verdict:
            if skipped >= self.skips:
                self.fail(inputs, skipped)
            return state._replace(step=new.step), metrics, first_not_finite(self.algorithm, inputs)
        return new, metrics, ""

    def must_wait_for(self, verdict: Tensor) -> bool:
        """Whether reading the verdict now would make a device wait. To skip a step it must be known at once."""
        return verdict.device.type != "cpu" and not self.skips

    def settle(self) -> None:
        """Read the verdict that is still open."""
        if self.unread is None:
            return
        verdict, inputs = self.unread
        self.unread = None
        if not verdict:
            self.fail(inputs, 0)

    def fail(self, inputs: Inputs, skipped: int) -> NoReturn:
        """Name the first place at which a number is not finite."""
        after = f", after {skipped} steps skipped (train.skip_limit)" if skipped else ""
        step = inputs.before.step + 1
        raise RunFailed(f"meta-step {step}: {first_not_finite(self.algorithm, inputs)}{after}; {SMALLER_STEPS}")


def is_finite(tree: Any) -> Tensor:
    """Whether no number in the tree is NaN or infinite: one flag, on the tree's device."""
    return torch.cat([leaf.detach().flatten() for leaf in leaves(tree)]).isfinite().all()


def first_not_finite(algorithm: Algorithm[Any], inputs: Inputs) -> str:
    """The first place at which a number is not finite: the batch, an inner step, the query loss, the gradient."""
    theta, tasks, algorithm = inputs.before.theta, inputs.tasks, at_step(algorithm, inputs.before.step)
    for task in range(len(leaves(tasks)[0])):
        if found := _in_task(algorithm, theta, take(tasks, task)):
            return f"task {task}, {found}"
    return "the outer update is not finite, though every task is"


def _in_task(algorithm: Algorithm[Any], theta: Theta, task: Task) -> str:
    for part in ("support", "query"):
        for name, values in getattr(task, part)._asdict().items():
            if not is_finite(values):
                return f"{part} {name}: the batch holds {_kind(values)}"
    phis = trajectory_of(algorithm, theta, task.support)
    for k, phi in enumerate(phis):
        if not is_finite(phi):
            return f"inner step {k}: the adapted parameters hold {_kind(phi)}"
    loss = algorithm.loss(theta, task)[1]["query_loss"]
    if not is_finite(loss):
        return f"after inner step {len(phis) - 1}: the query loss is {_kind(loss)}"
    gradient = torch.func.grad(algorithm.loss, has_aux=True)(theta, task)[0]
    return "" if is_finite(gradient) else f"after inner step {len(phis) - 1}: the meta-gradient holds {_kind(gradient)}"


def _kind(tree: Any) -> str:
    return "NaN" if any(leaf.isnan().any() for leaf in leaves(tree)) else "infinity"
