"""When memory runs short, the same tasks are done again, fewer of them at a time."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from .errors import RunFailed
from .memory import SHORTAGE, out_of_memory

Say = Callable[[str], None]
T = TypeVar("T")
CURE = "lower algorithm.steps, data.queries or model.width, or set algorithm.remat=true or algorithm.first_order=true"


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
                    raise RunFailed(f"out of memory with one task at a time; {CURE}") from error
            # out of the handler, which holds on to what the failed attempt had allocated
            self.size = (size + 1) // 2
            self.say(f"out of memory with {size} tasks at a time; going on with {self.size} (train.chunk_size)")
            gc.collect()
            torch.cuda.empty_cache()
