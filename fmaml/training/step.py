"""The meta-step of training: `meta_step`, compiled where that saves time and chunked where memory is short.

Results change only by rounding. A compiled step is one graph: gradient, mean over tasks and outer update, traced once.
The number of the step stays outside the graph, or every step would be compiled again. Nothing is differentiated through
compiled code: the meta-gradient is computed inside it.

The first step of a run is never compiled: it is there at once, shows mistakes as they are, and is counted, so that
``train.compile: auto`` can tell whether compiling pays. What is compiled must first give the numbers of the step as it
is (`fmaml.training.compiled`).
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
from .compiled import ChunkedStepFn, OperationCount, compiled, with_work
from .memory import MEMORY_ERRORS, TaskTooLarge

StepFn: TypeAlias = Callable[[MetaState, Task], tuple[MetaState, Metrics]]
LONG_RUN = 5_000  # meta-steps, after which compiling has saved more time than it took, wherever it saves any
LITTLE_WORK = 60e6  # floating-point operations an operation of torch, up to which compiling saves time
LITTLE_WORK_LOOPED = 6e6  # looped over tasks: only uncompiled are a task's images laid out channels last
COMPILING = "train.compile: compiling the steps, which takes up to a minute or two, once; false does without"


GRADS = Optimizer(lambda theta: (), lambda grads, state, theta: (grads, state))  # "updates" theta to its gradient


class TrainingStep:
    """The meta-step of a run; ``notify`` is told when it cannot be compiled or memory forces smaller chunks.

    ``begun`` is the form of the steps before the run was interrupted, which is kept, so that the bits stay the same.
    """

    def __init__(self, experiment: Experiment, settings: TrainSettings, notify: Notify, begun: StepForm) -> None:
        self.notify = notify
        self.begun = begun
        self.settings = settings
        self.algorithm = experiment.algorithm
        self.batching: Batching = settings.batching
        self.chunks = Chunks(begun.chunk_size or settings.chunk_size, notify)
        alone = distributed.world_size() == 1
        optimizer = experiment.optimizer if alone else GRADS
        self.plain: ChunkedStepFn = partial(meta_step, self.algorithm, optimizer, batching=self.batching)
        may_compile = settings.compile is True or (settings.compile == "auto" and settings.meta_steps >= LONG_RUN)
        self.compiled = begun.compiled if may_compile or begun.compiled is not None else False  # None: not decided yet
        self.compute: ChunkedStepFn = self._count_first if may_compile else self.plain  # of the next step
        if self.compiled:
            self.compute = self._compile
        self.step = self._in_chunks if alone else updated_together(self._in_chunks, experiment.optimizer, settings)

    def __call__(self, state: MetaState, tasks: Task) -> tuple[MetaState, Metrics]:
        """The state after a meta-step, and its metrics."""
        return self.step(state, tasks)

    def _in_chunks(self, state: MetaState, tasks: Task) -> tuple[MetaState, Metrics]:
        at_once = 1 if loops_over_tasks(self.batching, tasks) else leading(tasks)
        return self.chunks(lambda size: self.compute(state, tasks, chunk_size=size), at_once)

    def _count_first(self, state: MetaState, tasks: Task, chunk_size: int | None) -> tuple[MetaState, Metrics]:
        """The first step, uncompiled: its work decides whether the next ones are compiled."""
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
        """The work for the mean number of tasks in a process, so that processes with more or fewer decide alike."""
        processes = distributed.world_size()
        share = self.settings.tasks_of(processes) / processes
        return work._replace(flop=int(work.flop / tasks * share))

    def _compile(self, state: MetaState, tasks: Task, chunk_size: int | None) -> tuple[MetaState, Metrics]:
        """The first compiled step of this process."""
        self.notify(COMPILING)
        self.compute = compiled(self.plain, self.algorithm, self._go_on_uncompiled)
        return self.compute(state, tasks, chunk_size=chunk_size)

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

    def _go_on_uncompiled(self, reason: str) -> None:
        self.compiled, self.compute = False, self.plain
        self.notify(reason)
        if self.begun.compiled:
            self.notify(f"train.compile: the steps were compiled and now are not: {BITS_MAY_DIFFER}")


def updated_together(grads_fn: StepFn, optimizer: Optimizer, settings: TrainSettings) -> StepFn:
    """The step of several processes, from that of `GRADS`: the means over all of them, and with these the update.

    Neither is compiled: what a process tells the others is not part of a graph, and the update must have the same bits
    in all, also where one of them has no compiler.
    """
    reduce = with_vote(distributed.reduce(settings.tasks_of(distributed.world_size())))

    def step(state: MetaState, tasks: Task) -> tuple[MetaState, Metrics]:
        own, metrics = grads_fn(state, tasks)
        grads, metrics = reduce((own.theta, metrics))
        theta, opt_state = optimizer.step(grads, state.opt_state, state.theta)
        return MetaState(theta, opt_state, state.step + 1), metrics

    return step


def compiling_saves_time(work: OperationCount, meta_steps: int, *, looped: bool) -> bool:
    """Whether compiling is known to save more time than it takes, for a step with this work, looped over tasks or not.

    Measured on 2 cores of an AMD EPYC (torch 2.13): up to `LITTLE_WORK` the compiled step takes 0.13 to 0.85 of the
    time, which is 7 to 37 microseconds less for each operation, and compiling takes 14 to 45 milliseconds for each:
    see docs/decisions.md. With more work in each operation, the time is the products', and those are the same.
    """
    most = LITTLE_WORK_LOOPED if looped else LITTLE_WORK
    return meta_steps >= LONG_RUN and work.flop <= most * work.operations


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
