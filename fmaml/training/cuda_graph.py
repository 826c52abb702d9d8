"""A meta-step as one CUDA graph: all its kernels, captured once and launched together (``train.compile: graph``).

The rules of a capture:

- Shapes are static: every step has tasks of the same shapes.
- Nothing waits for the GPU, and control flow does not depend on its numbers.
- Numbers of Python are constants. So a loss must not change with the step, and a schedule computes the outer learning
  rate from a tensor, the number of steps taken.
- The addresses are static, too: inputs are copied in and outputs are copied out, so that the step remains a pure
  function.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ..config.settings import Config
from ..errors import Error
from ..processes.limits import is_out_of_memory
from ..tree import T, leaves, map_leaves
from ..types import Algorithm, MetaState, Metrics, OptState, Task, Theta
from .compiled import ChunkedStepFn

WARM_UPS = 3  # in which libraries choose their algorithms and allocate their workspaces
NO_GRAPH = "set train.compile=auto"
OutputT = TypeVar("OutputT")


def check_graph(config: Config, device: torch.device) -> None:
    """Raise Error if the steps shall be a CUDA graph, and the device is not a GPU."""
    if config["train"]["compile"] == "graph" and device.type != "cuda":
        raise Error(f"train.compile = graph: the device is {device}, and only a GPU has CUDA graphs; {NO_GRAPH}")


def captured(step_fn: ChunkedStepFn, algorithm: Algorithm[Any]) -> ChunkedStepFn:
    """``step_fn``, captured at its first call, and again if the size of the chunks changes.

    Raises Error if the step breaks a rule of captures.
    """
    if algorithm.at is not None:
        raise Error(f"train.compile = graph: this algorithm's loss changes from step to step; {NO_GRAPH}")

    def body(chunk_size: int | None, inputs: tuple[Theta, OptState, Task]) -> tuple[Theta, OptState, Metrics]:
        theta, opt_state, tasks = inputs
        state, metrics = step_fn(MetaState(theta, opt_state, 0), tasks, chunk_size=chunk_size)
        return state.theta, state.opt_state, metrics

    graphs: dict[int | None, Captured[Any, Any]] = {}

    @torch.no_grad()
    def step(state: MetaState, tasks: Task, chunk_size: int | None = None) -> tuple[MetaState, Metrics]:
        if chunk_size not in graphs:
            graphs.clear()  # a graph of larger chunks would keep its memory
            graphs[chunk_size] = Captured(partial(body, chunk_size))
        theta, opt_state, metrics = graphs[chunk_size]((state.theta, state.opt_state, tasks))
        return MetaState(theta, opt_state, state.step + 1), metrics

    return step


class Captured(Generic[T, OutputT]):
    """A pure function of a tree of tensors on a GPU, captured at its first call and replayed."""

    def __init__(self, fn: Callable[[T], OutputT]) -> None:
        self.fn = fn
        self.replay: Callable[[], None] | None = None

    def __call__(self, inputs: T) -> OutputT:
        if self.replay is None:
            self.inputs = map_leaves(torch.clone, inputs)
            self.replay, self.outputs = capture(partial(self.fn, self.inputs))
        for ours, given in zip(leaves(self.inputs), leaves(inputs), strict=True):
            check_same_shape(ours, given)
            ours.copy_(given)
        self.replay()
        return map_leaves(torch.clone, self.outputs)


def capture(fn: Callable[[], T]) -> tuple[Callable[[], None], T]:
    """Capture a call of ``fn``: the function that replays it, and the outputs. Each replay fills their memory."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            fn()
    torch.cuda.current_stream().wait_stream(stream)
    try:
        with torch.cuda.graph(graph):
            outputs = fn()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise Error(f"train.compile = graph: the step cannot be captured ({reason}); {NO_GRAPH}") from error
    return graph.replay, outputs


def check_same_shape(ours: Tensor, given: Tensor) -> None:
    """Raise Error if a tensor has another shape than in the captured call."""
    if ours.shape != given.shape:
        shapes = f"{list(given.shape)} after {list(ours.shape)}"
        raise Error(f"train.compile = graph: a step has a tensor of {shapes}, and a graph has one shape; {NO_GRAPH}")
