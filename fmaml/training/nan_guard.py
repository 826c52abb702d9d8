"""Keep NaN and infinity out of the training state.

A meta-step is a pure function, so a new state that is not finite can be discarded and the old state kept. Only then
is the first such number searched, task by task.
"""

from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from .. import distributed
from ..config.settings import TrainSettings
from ..errors import Ended, RunFailed
from ..evaluation import trajectory_of
from ..outer import at_step
from ..tree import is_finite, leaves, take
from ..types import Algorithm, MetaState, Metrics, Task, Theta
from .compiled import FINITE
from .step import StepFn

OUTER_UPDATE = "the outer update is not finite, although every task is"
CURE = "lower optimizer.lr or algorithm.inner_lr, set train.clip, or look at that task's data"


class StepInputs(NamedTuple):
    """The arguments of a meta-step."""

    state: MetaState
    tasks: Task


class AsyncFlag:
    """A boolean scalar that is read without waiting for later work on the GPU.

    ``bool`` of a tensor on a GPU waits for all launched work, including the next step. So the flag is copied to pinned
    memory at once, and an event signals the end of the copy.
    """

    def __init__(self, flag: Tensor) -> None:
        self.flag = flag
        self.event: torch.cuda.Event | None = None
        if flag.is_cuda:
            self.flag = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(flag, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()

    def __bool__(self) -> bool:
        if self.event is not None:
            self.event.synchronize()
        return bool(self.flag)


class NanGuard:
    """A step function that accepts only finite states.

    On a CPU every step is checked at once. On a GPU, reading a check at once would stall the device, so it is read
    after the next step has been launched. `check_pending` reads the last check. Call it before a state is used for
    anything but the next step.
    """

    def __init__(self, step_fn: StepFn, algorithm: Algorithm[Any], settings: TrainSettings) -> None:
        self.step_fn = step_fn
        self.algorithm = algorithm
        self.skip_limit = settings.skip_limit if settings.on_nan == "skip" else 0
        self.pending: tuple[AsyncFlag, StepInputs] | None = None  # the unread check, and the inputs of its step

    def __call__(self, state: MetaState, tasks: Task, skipped: int) -> tuple[MetaState, Metrics, str]:
        """The next state, its metrics, and the reason if the step was skipped (else "").

        ``skipped`` counts the steps skipped so far. Raises RunFailed if this step is not finite and may not be skipped.
        """
        inputs = StepInputs(state, tasks)
        new, metrics = self.step_fn(state, tasks)
        if (finite := metrics.get(FINITE)) is None:
            finite = is_finite((new.theta, new.opt_state, metrics["query_loss"]))
        verdict = AsyncFlag(finite)
        self.check_pending()
        if self.can_defer(finite):
            self.pending = verdict, inputs
        elif not verdict:
            if skipped >= self.skip_limit:
                self.fail(inputs, skipped)
            return state._replace(step=new.step), metrics, first_in_all_processes(self.algorithm, inputs)
        return new, metrics, ""

    def can_defer(self, finite: Tensor) -> bool:
        """Whether the check can be read later: on a GPU, unless steps may be skipped; a skip must be known at once."""
        return finite.device.type != "cpu" and not self.skip_limit

    def check_pending(self) -> None:
        """Read the deferred check, if any; RunFailed if its step was not finite."""
        if self.pending is None:
            return
        finite, inputs = self.pending
        self.pending = None
        if not finite:
            self.fail(inputs, 0)

    def fail(self, inputs: StepInputs, skipped: int) -> NoReturn:
        """Raise RunFailed with the first place of a number that is not finite."""
        after = f", after {skipped} steps skipped (train.skip_limit)" if skipped else ""
        step = inputs.state.step + 1
        found = first_in_all_processes(self.algorithm, inputs)
        if distributed.rank():
            raise Ended
        raise RunFailed(f"meta-step {step}: {found}{after}; {CURE}")


def first_in_all_processes(algorithm: Algorithm[Any], inputs: StepInputs) -> str:
    """The result of `first_not_finite` over the tasks of all processes."""
    own = len(leaves(inputs.tasks)[0])
    before = sum(distributed.gather(own)[: distributed.rank()])
    found = distributed.gather(first_not_finite(algorithm, inputs, before))
    return next((place for place in found if place != OUTER_UPDATE), OUTER_UPDATE)


def first_not_finite(algorithm: Algorithm[Any], inputs: StepInputs, first_task: int = 0) -> str:
    """The first place of a number that is not finite: the batch, an inner step, the query loss or the gradient."""
    state, tasks = inputs
    algorithm = at_step(algorithm, state.step)
    for task in range(len(leaves(tasks)[0])):
        found = _first_in_task(algorithm, state.theta, take(tasks, task))
        if found:
            return f"task {first_task + task}, {found}"
    return OUTER_UPDATE


def _first_in_task(algorithm: Algorithm[Any], theta: Theta, task: Task) -> str:
    for part in ("support", "query"):
        for name, values in getattr(task, part)._asdict().items():
            if not is_finite(values):
                return f"{part} {name}: the batch holds {_nan_or_infinity(values)}"
    phis = trajectory_of(algorithm, theta, task.support)
    for k, phi in enumerate(phis):
        if not is_finite(phi):
            chunk = f" (chunk {k} of the stream)" if algorithm.predicts else ""
            return f"inner step {k}{chunk}: the adapted parameters hold {_nan_or_infinity(phi)}"
    last = len(phis) - 1
    loss = algorithm.loss(theta, task)[1]["query_loss"]
    if not is_finite(loss):
        return f"after inner step {last}: the query loss is {_nan_or_infinity(loss)}"
    gradient, _ = torch.func.grad(algorithm.loss, has_aux=True)(theta, task)
    if not is_finite(gradient):
        return f"after inner step {last}: the meta-gradient holds {_nan_or_infinity(gradient)}"
    return ""


def _nan_or_infinity(tree: Any) -> str:
    return "NaN" if any(leaf.isnan().any() for leaf in leaves(tree)) else "infinity"
