"""The step that training takes: `meta_step`, compiled where that saves time and chunked where memory runs short.

Results change by rounding alone. A compiled step is one graph: gradient, mean over tasks and outer update, traced once.
The number of the step stays outside it, or each step would be compiled anew. Nothing is differentiated through compiled
code: the meta-gradient is computed inside and comes out as a result.
"""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch

from ..config.settings import TrainSettings
from ..errors import RunFailed, Say
from ..outer import loops, meta_step
from ..tree import T, leading, leaves
from ..types import Algorithm, MetaState, Metrics, Task, Theta
from .build import Experiment
from .memory import SHORTAGE, out_of_memory

Step: TypeAlias = Callable[..., tuple[MetaState, Metrics]]  # state, tasks, chunk_size=
StepFn: TypeAlias = Callable[[MetaState, Task], tuple[MetaState, Metrics]]
SMALL_NETWORK, LONG_RUN = 10_000, 10_000  # parameters; meta-steps
EAGER = "the steps run uncompiled"
LESS_MEMORY = (
    "lower algorithm.steps, data.queries or model.width, or set algorithm.remat=true or algorithm.first_order=true"
)


def training_step(
    experiment: Experiment,
    theta: Theta,
    settings: TrainSettings,
    say: Say,
) -> StepFn:
    """The meta-step of a run; ``say`` hears of every choice that was made for want of memory or of a compiler."""
    batching = settings.batching
    step_fn: Step = partial(meta_step, experiment.algorithm, experiment.optimizer, batching=batching)
    if settings.compile is True or (settings.compile == "auto" and compiling_saves_time(theta, settings.meta_steps)):
        step_fn = compiled(step_fn, experiment.algorithm, say)
    chunks = Chunks(settings.chunk_size, say)

    def step(state: MetaState, tasks: Task) -> tuple[MetaState, Metrics]:
        at_once = 1 if loops(batching, tasks) else leading(tasks)
        return chunks(lambda size: step_fn(state, tasks, chunk_size=size), at_once)

    return step


def compiling_saves_time(theta: Theta, meta_steps: int) -> bool:
    """Whether compiling is known to save more time than it takes.

    It is for small networks, where most of a step is the overhead of its thousand operations, and long runs.
    """
    return meta_steps >= LONG_RUN and sum(leaf.numel() for leaf in leaves(theta)) <= SMALL_NETWORK


def compiled(step_fn: Step, algorithm: Algorithm[Any], say: Say, backend: str = "inductor") -> Step:
    """``step_fn`` compiled at its first call; should that fail, it says why, and all steps run as they are."""
    if algorithm.at is not None:
        say(f"train.compile: this algorithm's loss changes from step to step; {EAGER}")
        return step_fn

    def body(theta: Theta, opt_state: Any, tasks: Task, chunk_size: int | None) -> tuple[Theta, Any, Metrics]:
        state, metrics = step_fn(MetaState(theta, opt_state, 0), tasks, chunk_size=chunk_size)
        return state.theta, state.opt_state, metrics

    graph, failed = torch.compile(body, fullgraph=True, dynamic=False, backend=backend), False

    @torch.no_grad()
    def step(state: MetaState, tasks: Task, chunk_size: int | None = None) -> tuple[MetaState, Metrics]:
        nonlocal failed
        if not failed:
            try:
                theta, opt_state, metrics = graph(state.theta, state.opt_state, tasks, chunk_size)
                return MetaState(theta, opt_state, state.step + 1), metrics
            except Exception as error:
                if out_of_memory(error):
                    raise
                failed = True
                say(f"train.compile: {reason(error)}; {EAGER}")
        return step_fn(state, tasks, chunk_size=chunk_size)

    return step


def reason(error: Exception) -> str:
    """The first two lines of what the compiler said: which part of it, and why."""
    return " ".join(str(error).split("\n")[:2]).strip() or type(error).__name__


class Chunks:
    """How many tasks are held in memory at a time: ``size`` (None: all), halved whenever that is too many."""

    def __init__(self, size: int | None, say: Say) -> None:
        self.size, self.say = size, say

    def __call__(self, fn: Callable[[int | None], T], tasks: int) -> T:
        """``fn(chunk_size)``, which does ``tasks`` tasks, at the largest chunk size for which memory suffices."""
        while True:
            try:
                return fn(self.size)
            except SHORTAGE as error:
                if not out_of_memory(error):
                    raise
                size = min(self.size or tasks, tasks)
                if size == 1:
                    raise RunFailed(f"out of memory with one task at a time; {LESS_MEMORY}") from error
            # out of the handler, which holds on to what the failed attempt had allocated
            self.size = (size + 1) // 2
            self.say(f"out of memory with {size} tasks at a time; going on with {self.size} (train.chunk_size)")
            gc.collect()
            torch.cuda.empty_cache()
