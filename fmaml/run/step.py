"""The meta-step of training: `meta_step`, compiled where that saves time and chunked where memory is short.

Results change only by rounding. A compiled step is one graph: gradient, mean over tasks and outer update, traced once.
The number of the step stays outside the graph, or every step would be compiled again. Nothing is differentiated through
compiled code: the meta-gradient is computed inside it.
"""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch

from .. import distributed
from ..batching import loops_over_tasks
from ..config.settings import TrainSettings
from ..errors import Notify
from ..outer import meta_step
from ..ranges import Batching
from ..tree import T, leading, leaves
from ..types import Algorithm, MetaState, Metrics, Optimizer, OptState, Task, Theta
from .build import Experiment
from .limits import is_out_of_memory
from .memory import MEMORY_ERRORS, TaskTooLarge
from .processes import with_vote

StepFn: TypeAlias = Callable[[MetaState, Task], tuple[MetaState, Metrics]]
ChunkedStepFn: TypeAlias = Callable[..., tuple[MetaState, Metrics]]  # state, tasks, chunk_size=
SMALL_NETWORK = 10_000  # parameters
LONG_RUN = 10_000  # meta-steps
NOT_COMPILED = "the steps run uncompiled"
BITS_MAY_DIFFER = "results may now differ in the last bits from an uninterrupted run"


GRADS = Optimizer(lambda theta: (), lambda grads, state, theta: (grads, state))  # "updates" theta to its gradient


class StepForm(NamedTuple):
    """How meta-steps are computed, as far as a run finds it out: it changes rounding, so a resumed run keeps to it."""

    compiled: bool | None = None  # None before the first step
    chunk_size: int | None = None


class TrainingStep:
    """The meta-step of a run; ``notify`` is told when it cannot be compiled or memory forces smaller chunks.

    ``begun`` is the form of the steps before the run was interrupted, which is kept, so that the bits stay the same.
    """

    def __init__(
        self,
        experiment: Experiment,
        theta: Theta,
        settings: TrainSettings,
        notify: Notify,
        begun: StepForm,
    ) -> None:
        self.notify = notify
        self.begun = begun
        self.batching: Batching = settings.batching
        self.chunks = Chunks(begun.chunk_size or settings.chunk_size, notify)
        self.compiled = self._choose_compiled(theta, settings)
        alone = distributed.count() == 1
        optimizer = experiment.optimizer if alone else GRADS
        self.step_fn: ChunkedStepFn = partial(meta_step, experiment.algorithm, optimizer, batching=self.batching)
        if self.compiled:
            self.step_fn = compiled(self.step_fn, experiment.algorithm, self._go_on_uncompiled)
        self.step = self._in_chunks if alone else updated_together(self._in_chunks, experiment.optimizer, settings)

    def __call__(self, state: MetaState, tasks: Task) -> tuple[MetaState, Metrics]:
        """The state after a meta-step, and its metrics."""
        return self.step(state, tasks)

    def _in_chunks(self, state: MetaState, tasks: Task) -> tuple[MetaState, Metrics]:
        at_once = 1 if loops_over_tasks(self.batching, tasks) else leading(tasks)
        return self.chunks(lambda size: self.step_fn(state, tasks, chunk_size=size), at_once)

    def agree(self) -> None:
        """From now on every process holds as few tasks in memory at a time as the one that can hold the fewest."""
        smallest = min((size for size in distributed.gather(self.chunks.size) if size), default=None)
        if smallest != self.chunks.size:
            self.chunks.size = smallest
            self.notify(f"out of memory in another process; continuing with {smallest} tasks at a time")

    @property
    def form(self) -> StepForm:
        """How the steps are computed now."""
        return StepForm(self.compiled, self.chunks.size)

    def _choose_compiled(self, theta: Theta, settings: TrainSettings) -> bool:
        chosen = settings.compile
        if chosen == "auto":
            chosen = compiling_saves_time(theta, settings.meta_steps)
        if self.begun.compiled is None:
            return chosen
        if chosen and not self.begun.compiled:
            self.notify("train.compile: the steps stay uncompiled, as before the interruption; a new run compiles them")
        return self.begun.compiled

    def _go_on_uncompiled(self, reason: str) -> None:
        self.compiled = False
        self.notify(reason)
        if self.begun.compiled:
            self.notify(f"train.compile: the steps were compiled and now are not: {BITS_MAY_DIFFER}")


def updated_together(grads_fn: StepFn, optimizer: Optimizer, settings: TrainSettings) -> StepFn:
    """The step of several processes, from that of `GRADS`: the means over all of them, and with these the update.

    Neither is compiled: what a process tells the others is not part of a graph, and the update must have the same bits
    in all, also where one of them has no compiler.
    """
    reduce = with_vote(distributed.reduce(settings.tasks_of(distributed.count())))

    def step(state: MetaState, tasks: Task) -> tuple[MetaState, Metrics]:
        own, metrics = grads_fn(state, tasks)
        grads, metrics = reduce((own.theta, metrics))
        theta, opt_state = optimizer.update(grads, state.opt_state, state.theta)
        return MetaState(theta, opt_state, state.step + 1), metrics

    return step


def compiling_saves_time(theta: Theta, meta_steps: int) -> bool:
    """Whether compiling is known to save more time than it takes: for small networks in long runs.

    Most of a small network's step is the overhead of launching a thousand operations.
    """
    return meta_steps >= LONG_RUN and sum(leaf.numel() for leaf in leaves(theta)) <= SMALL_NETWORK


def compiled(
    step_fn: ChunkedStepFn, algorithm: Algorithm[Any], notify: Notify, backend: str = "inductor"
) -> ChunkedStepFn:
    """``step_fn``, compiled at its first call; if that fails, ``notify`` is told why and steps run uncompiled."""
    if algorithm.at is not None:
        notify(f"train.compile: this algorithm's loss changes from step to step; {NOT_COMPILED}")
        return step_fn

    def body(theta: Theta, opt_state: OptState, tasks: Task, chunk_size: int | None) -> tuple[Theta, OptState, Metrics]:
        state, metrics = step_fn(MetaState(theta, opt_state, 0), tasks, chunk_size=chunk_size)
        return state.theta, state.opt_state, metrics

    graph = torch.compile(body, fullgraph=True, dynamic=False, backend=backend)
    failed = False

    @torch.no_grad()
    def step(state: MetaState, tasks: Task, chunk_size: int | None = None) -> tuple[MetaState, Metrics]:
        nonlocal failed
        if not failed:
            try:
                theta, opt_state, metrics = graph(state.theta, state.opt_state, tasks, chunk_size)
                return MetaState(theta, opt_state, state.step + 1), metrics
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                failed = True
                notify(f"train.compile: {compiler_message(error)}; {NOT_COMPILED}")
        return step_fn(state, tasks, chunk_size=chunk_size)

    return step


def compiler_message(error: Exception) -> str:
    """The first two lines of the compiler's error: which part of it failed, and why."""
    return " ".join(str(error).split("\n")[:2]).strip() or type(error).__name__


class Chunks:
    """How many tasks are held in memory at a time: ``size`` (None: all), halved whenever memory runs out."""

    def __init__(self, size: int | None, notify: Notify) -> None:
        self.size = size
        self.notify = notify

    def __call__(self, fn: Callable[[int | None], T], tasks: int) -> T:
        """``fn(chunk_size)`` with the largest chunk size that fits in memory; ``fn`` processes ``tasks`` tasks.

        Raises TaskTooLarge if even one task at a time does not fit.
        """
        while True:
            try:
                return fn(self.size)
            except MEMORY_ERRORS as error:
                if not is_out_of_memory(error):
                    raise
                size = min(self.size or tasks, tasks)
                if size == 1:
                    raise TaskTooLarge("one task at a time does not fit in memory") from error
            # outside the handler, whose traceback keeps the failed attempt's tensors alive
            self.size = (size + 1) // 2
            self.notify(f"out of memory with {size} tasks at a time; continuing with {self.size} (train.chunk_size)")
            gc.collect()
            torch.cuda.empty_cache()
