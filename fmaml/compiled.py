"""The whole meta-step as one compiled graph: gradient, mean over tasks and outer update, traced once.

The number of the step stays outside, or each would be compiled anew. Nothing is differentiated through compiled code:
the meta-gradient is made inside and comes out as a result.
"""

from collections.abc import Callable
from typing import Any

import torch

from .chunks import Say
from .memory import out_of_memory
from .tree import leaves
from .types import Algorithm, MetaState, Metrics, Task, Theta

Step = Callable[..., tuple[MetaState, Metrics]]  # state, tasks, chunk_size=
SMALL, LONG = 10_000, 10_000  # parameters; meta-steps
EAGER = "the steps run uncompiled"


def pays(theta: Theta, meta_steps: int) -> bool:
    """Whether compiling is known to save more time than it takes.

    It is for small networks, where most of a step is the overhead of its thousand operations, and long runs.
    """
    return meta_steps >= LONG and sum(leaf.numel() for leaf in leaves(theta)) <= SMALL


def compiled(step_fn: Step, algorithm: Algorithm, say: Say, backend: str = "inductor") -> Step:
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
