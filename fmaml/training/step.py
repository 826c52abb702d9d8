"""The meta-step of training: `meta_step`, compiled if that saves time, and chunked if memory is short.

Compiling and chunking change results only by rounding. A compiled step is one graph, traced once: gradient, mean over
tasks and outer update. The step's number stays outside the graph, to avoid compiling every step. The meta-gradient is
computed inside the graph; nothing differentiates through compiled code.

The first step of a run is never compiled. So it starts at once, its errors are readable, and its operations are
counted, so that ``train.compile: auto`` can decide. A compiled step is checked against the uncompiled one
(`fmaml.training.compiled`).
"""

import gc
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch

from .. import distributed
from ..checkpoints.progress import BITS_MAY_DIFFER, StepForm
from ..config.build import Experiment
from ..config.settings import TrainSettings
from ..errors import Notify
from ..outer import loops_over_tasks, meta_step
from ..processes.join import with_vote
from ..processes.limits import is_out_of_memory
from ..setting_types import Batching
from ..tree import T, leading
from ..types import MetaState, Metrics, Optimizer, Task
from .compiled import FINITE, ChunkedStepFn, OperationCount, compiled, with_work
from .cuda_graph import captured
from .memory import MEMORY_ERRORS, TaskTooLarge

StepFn: TypeAlias = Callable[[MetaState, Task], tuple[MetaState, Metrics]]
LONG_RUN = 5_000  # meta-steps; in runs this long, compiling saves more time than it takes, if it saves any
LITTLE_WORK = 60e6  # floating-point operations per operation of torch; up to this, compiling saves time
LITTLE_WORK_LOOPED = 6e6  # lower if looped over tasks, because compiled code does not lay out images channels last
COMPILING = "train.compile: compiling the steps takes up to two minutes, once; set false to skip it"


GRADS = Optimizer(lambda theta: (), lambda grads, state, theta: (grads, state))  # "updates" theta to its gradient


class TrainingStep:
    """The meta-step of a run; ``notify`` is called if compiling fails or memory forces smaller chunks.

    ``saved`` is the form of the steps before an interruption. It is kept, so that the bits stay the same.
    """

    def __init__(self, experiment: Experiment, settings: TrainSettings, notify: Notify, saved: StepForm) -> None:
        self.notify = notify
        self.saved = saved
        self.settings = settings
        self.algorithm = experiment.algorithm
        self.batching: Batching = settings.batching
        self.chunks = Chunks(saved.chunk_size or settings.chunk_size, notify)
        alone = distributed.world_size() == 1
        optimizer = experiment.optimizer if alone else GRADS
        self.plain: ChunkedStepFn = partial(meta_step, self.algorithm, optimizer, batching=self.batching)
        may_compile = settings.compile is True or (settings.compile == "auto" and settings.meta_steps >= LONG_RUN)
        self.compiled = saved.compiled if may_compile or saved.compiled is not None else False  # None: not decided yet
        self.compute: ChunkedStepFn = self._count_first if may_compile else self.plain  # of the next step
        if self.compiled:
            self.compute = self._compile
        elif settings.compile == "graph":
            self.compute = captured(self.plain, self.algorithm)
        self.step = self._in_chunks if alone else updated_together(self._in_chunks, experiment.optimizer, settings)

    def __call__(self, state: MetaState, tasks: Task) -> tuple[MetaState, Metrics]:
        """The state after a meta-step, and its metrics."""
        return self.step(state, tasks)

    def _in_chunks(self, state: MetaState, tasks: Task) -> tuple[MetaState, Metrics]:
        at_once = 1 if loops_over_tasks(self.batching, tasks) else leading(tasks)
        return self.chunks(lambda size: self.compute(state, tasks, chunk_size=size), at_once)

    def _count_first(self, state: MetaState, tasks: Task, chunk_size: int | None) -> tuple[MetaState, Metrics]:
        """Run the first step, uncompiled. Its work decides whether the next steps are compiled."""
        result, work = with_work(lambda: self.plain(state, tasks, chunk_size=chunk_size))
        self.compute = self.plain
        pays = self.settings.compile is True or compiling_saves_time(
            self._work_of_a_share(work, leading(tasks)),
            self.settings.meta_steps,
            looped=loops_over_tasks(self.batching, tasks),
        )
        if pays and self.compiled is not None:
            self.notify("train.compile: the steps stay uncompiled, as before the interruption; a new run compiles them")
        elif pays:
            self.compute = self._compile
        self.compiled = pays if self.compiled is None else self.compiled
        return result

    def _work_of_a_share(self, work: OperationCount, tasks: int) -> OperationCount:
        """The work for the mean number of tasks per process, so that all processes decide alike."""
        processes = distributed.world_size()
        share = self.settings.tasks_of(processes) / processes
        return work._replace(flop=int(work.flop / tasks * share))

    def _compile(self, state: MetaState, tasks: Task, chunk_size: int | None) -> tuple[MetaState, Metrics]:
        """Run the first compiled step of this process."""
        self.notify(COMPILING)
        self.compute = compiled(self.plain, self.algorithm, self._go_on_uncompiled)
        return self.compute(state, tasks, chunk_size=chunk_size)

    def agree(self) -> None:
        """Use the smallest chunk size of all processes in each of them."""
        smallest = min((size for size in distributed.gather(self.chunks.size) if size), default=None)
        if smallest != self.chunks.size:
            self.chunks.size = smallest
            self.notify(f"out of memory in another process; continuing with {smallest} tasks at a time")

    @property
    def form(self) -> StepForm:
        """The current form of the steps."""
        return StepForm(self.compiled, self.chunks.size)

    def _go_on_uncompiled(self, reason: str) -> None:
        self.compiled, self.compute = False, self.plain
        self.notify(reason)
        if self.saved.compiled:
            self.notify(f"train.compile: the steps were compiled before and are not now: {BITS_MAY_DIFFER}")


def updated_together(grads_fn: StepFn, optimizer: Optimizer, settings: TrainSettings) -> StepFn:
    """The step of several processes: average the gradients of ``grads_fn`` (made with `GRADS`), then update theta.

    Neither part is compiled. Communication cannot be in a graph. The update must have the same bits in every process,
    also in one without a compiler.
    """
    reduce = with_vote(distributed.reduce(settings.tasks_of(distributed.world_size())))

    def step(state: MetaState, tasks: Task) -> tuple[MetaState, Metrics]:
        own, metrics = grads_fn(state, tasks)
        metrics = {name: value for name, value in metrics.items() if name != FINITE}  # of this process's gradient alone
        grads, metrics = reduce((own.theta, metrics))
        theta, opt_state = optimizer.step(grads, state.opt_state, state.theta)
        return MetaState(theta, opt_state, state.step + 1), metrics

    return step


def compiling_saves_time(work: OperationCount, meta_steps: int, *, looped: bool) -> bool:
    """Whether compiling is known to save more time than it takes, for a step with this work, looped over tasks or not.

    Up to `LITTLE_WORK` the compiled step takes 0.13 to 0.85 of the time: 7 to 37 microseconds less per operation.
    Compiling takes 14 to 45 milliseconds per operation. With more work per operation, products take most of the time,
    and compiling does not speed them up. Measured on 2 cores of an AMD EPYC with torch 2.13: see docs/decisions.md.
    """
    most = LITTLE_WORK_LOOPED if looped else LITTLE_WORK
    return meta_steps >= LONG_RUN and work.flop <= most * work.operations


class Chunks:
    """The number of tasks in memory at a time: ``size`` (None: all), halved whenever memory runs out."""

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
            # outside the handler: its traceback keeps the failed attempt's tensors alive
            self.size = (size + 1) // 2
            self.notify(f"out of memory with {size} tasks at a time; continuing with {self.size} (train.chunk_size)")
            gc.collect()
            torch.cuda.empty_cache()
