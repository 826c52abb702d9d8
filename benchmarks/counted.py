"""Measure memory by counting tensors: exact, independent of the device, and available before memory runs out."""

import os
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fmaml.tree import leaves


class Memory(TorchDispatchMode):
    """Count the bytes of tensors created in the block; ``peak`` is the most at a time.

    Memory of kernels and of the allocator is not included.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak, self.there = 0, 0, set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in leaves(made):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in self.there:
                storage = leaf.untyped_storage()
                self.there.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return made

    def _gone(self, key: int, size: int) -> None:
        self.there.discard(key)
        self.now -= size


def peak_bytes(run: Callable[[], Any]) -> int:
    """The peak bytes of the tensors created by one call."""
    with Memory() as memory:
        run()
    return memory.peak


def room(device: torch.device) -> float:
    """The bytes that a step may use: a part of the device's memory, the rest for the allocator and other programs."""
    if device.type == "cuda":
        return 0.7 * torch.cuda.get_device_properties(device).total_memory
    return 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
