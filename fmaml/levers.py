"""The step that training takes: `meta_step` with what makes it faster or smaller; results change by rounding alone."""

from functools import partial
from typing import Literal

from .build import Experiment
from .chunks import Chunks, Say
from .compiled import compiled, pays
from .finite import StepFn
from .outer import Batching, loops, meta_step
from .tree import leading
from .types import MetaState, Metrics, Task, Theta


def training_step(
    experiment: Experiment,
    theta: Theta,
    say: Say,
    *,
    meta_steps: int,
    batching: Batching,
    chunk_size: int | None,
    compile: bool | Literal["auto"],
) -> StepFn:
    """``say`` hears of every choice that was made for want of memory or of a compiler."""
    step_fn = partial(meta_step, experiment.algorithm, experiment.optimizer, batching=batching)
    if compile is True or (compile == "auto" and pays(theta, meta_steps)):
        step_fn = compiled(step_fn, experiment.algorithm, say)
    chunks = Chunks(chunk_size, say)

    def step(state: MetaState, tasks: Task) -> tuple[MetaState, Metrics]:
        at_once = 1 if loops(batching, tasks) else leading(tasks)
        return chunks(lambda size: step_fn(state, tasks, chunk_size=size), at_once)

    return step
