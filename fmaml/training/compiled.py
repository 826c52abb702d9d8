"""A compiled meta-step, checked against the uncompiled one, with a fallback; and the count of a step's operations."""

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..errors import Notify
from ..processes.limits import is_out_of_memory
from ..tree import T, global_norm, is_finite, leaves
from ..types import Algorithm, MetaState, Metrics, OptState, Task, Theta

ChunkedStepFn: TypeAlias = Callable[..., tuple[MetaState, Metrics]]  # state, tasks, chunk_size=
FINITE = "finite"  # a metric of compiled steps: whether their state and loss are finite, found within the graph
FIXED = "G['__import_torch_dot_", "G['__import_fmaml_dot_", "G['__builtins_dict_"  # begin the names of guards
NOT_COMPILED = "the steps run uncompiled"
MAX_DIFFERENCE = 0.05  # of the update; rounding, also when it moves a ReLU's input across 0, changes far less


def compiled(
    step_fn: ChunkedStepFn, algorithm: Algorithm[Any], notify: Notify, backend: str = "inductor"
) -> ChunkedStepFn:
    """``step_fn``, compiled at its first call.

    If compiling fails, ``notify`` receives the reason and the steps run uncompiled. The same holds if the compiled step
    gives another result, because compilers have silently computed wrong gradients.
    """
    if algorithm.at is not None:
        notify(f"train.compile: this algorithm's loss changes from step to step; {NOT_COMPILED}")
        return step_fn

    def body(theta: Theta, opt_state: OptState, tasks: Task, chunk_size: int | None) -> tuple[Theta, OptState, Metrics]:
        state, metrics = step_fn(MetaState(theta, opt_state, 0), tasks, chunk_size=chunk_size)
        numbers = leaves((state.theta, state.opt_state, metrics["query_loss"]))
        finite = reduce(torch.logical_and, [leaf.isfinite().all() for leaf in numbers])  # each fused with its update
        return state.theta, state.opt_state, {**metrics, FINITE: finite}

    graph = torch.compile(body, fullgraph=True, dynamic=False, backend=backend, options=options_for(backend))
    failed = checked = False

    def checked_graph(state: MetaState, tasks: Task, chunk_size: int | None) -> tuple[MetaState, Metrics]:
        nonlocal checked
        theta, opt_state, metrics = graph(state.theta, state.opt_state, tasks, chunk_size)
        new = MetaState(theta, opt_state, state.step + 1)
        if not checked:
            checked = True
            plain, _ = step_fn(state, tasks, chunk_size=chunk_size)
            if (apart := difference(new, plain, state)) > MAX_DIFFERENCE:
                raise RuntimeError(f"the compiled step differs from the uncompiled one by {apart:.0%} of the update")
        return new, metrics

    @torch.no_grad()
    def step(state: MetaState, tasks: Task, chunk_size: int | None = None) -> tuple[MetaState, Metrics]:
        nonlocal failed
        if not failed:
            try:
                return checked_graph(state, tasks, chunk_size)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                failed = True
                notify(f"train.compile: {compiler_message(error)}; {NOT_COMPILED}")
        return step_fn(state, tasks, chunk_size=chunk_size)

    return step


def options_for(backend: str) -> dict[str, Any]:
    """Options of `torch.compile` that leave out needless checks before each step.

    Guards check the shapes and strides of the inputs, so inductor's graph need not check them again.
    """
    return {"guard_filter_fn": kept_guards} | ({"size_asserts": False} if backend == "inductor" else {})


def kept_guards(guards: Any) -> list[bool]:
    """Whether each guard is checked before a step: all but those on variables of torch, fmaml and Python.

    They are 60 % on the sinusoid. Those on inputs stay, and those on variables that a user's loss reads.
    """
    return [not (guard.is_global and guard.name.startswith(FIXED)) for guard in guards]


def difference(found: MetaState, expected: MetaState, before: MetaState) -> float:
    """The distance of two states after a step, relative to the change by the step; 0 if the expected one is not finite.

    If the optimizer has running means, these are compared, because they are linear in the gradient. Adam's first
    updates are not: they are as large for rounding errors as for a real gradient.
    """
    part = "opt_state" if means(before.opt_state) else "theta"
    ours, theirs, old = (means(getattr(state, part)) for state in (found, expected, before))
    if not bool(is_finite(theirs)):
        return 0.0
    changed = global_norm([b - c for b, c in zip(theirs, old, strict=True)])
    apart = global_norm([a - b for a, b in zip(ours, theirs, strict=True)])
    return float(apart / changed) if float(apart) else 0.0


def means(tree: Any) -> list[Tensor]:
    """The leaves that are arrays of floats, which excludes scalars such as a count of steps."""
    return [leaf for leaf in leaves(tree) if leaf.ndim and leaf.is_floating_point()]


def compiler_message(error: Exception) -> str:
    """The first two lines of the compiler's error: the failing part, and the reason."""
    return " ".join(str(error).split("\n")[:2]).strip() or type(error).__name__


class OperationCount(NamedTuple):
    """The number of operations that torch launches, and of floating-point operations in products."""

    operations: int
    flop: int


class Operations(TorchDispatchMode):
    """Count the operations that torch launches in the block; views launch nothing."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def with_work(call: Callable[[], T]) -> tuple[T, OperationCount]:
    """The result of the call, and its operations, which do not depend on the machine or its load."""
    with Operations() as operations, FlopCounterMode(display=False) as products:
        result = call()
    return result, OperationCount(operations.count, products.get_total_flops())
