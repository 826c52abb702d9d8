"""A function of tensors as one CUDA graph, with a single launch for all its kernels."""

from collections.abc import Callable
from typing import Any, Generic

import torch

from fmaml.tree import T, leaves, map_leaves

WARM_UPS = 3  # in which libraries choose their algorithms and allocate their workspaces


class Graphed(Generic[T]):
    """Holds a state; each call replaces it with its next state by ``fn``.

    On a GPU the call is captured and replayed. It copies the next state into the tensors of the state, which stay at
    their addresses. On a CPU ``fn`` runs each time, so that everything but the capture can be tested.
    """

    def __init__(self, fn: Callable[[T], T], state: T) -> None:
        self.fn = fn
        self.state: T = map_leaves(torch.clone, state)
        self.graph: Any = None
        if leaves(state)[0].is_cuda:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    fn(self.state)
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self._advance()
            self.reset(state)

    def __call__(self) -> None:
        if self.graph is None:
            self._advance()
        else:
            self.graph.replay()

    def reset(self, state: T) -> None:
        """Continue from this state, which may be on another device."""
        for ours, given in zip(leaves(self.state), leaves(state), strict=True):
            ours.copy_(given)

    def _advance(self) -> None:
        self.reset(self.fn(self.state))
