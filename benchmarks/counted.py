"""Memory by counting tensors: exact, the same on every device, and known before anything is too large."""

import os
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fmaml.tree import leaves


class Memory(TorchDispatchMode):
    """Counts the bytes of the tensors made while it is on: ``peak`` is the most that were there at a time.

    What the kernels and the allocator take besides is not in it.
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
    """The most bytes that the tensors made by one call take at a time."""
    with Memory() as memory:
        run()
    return memory.peak


def room(device: torch.device) -> float:
    """Bytes that a step may take: what the device has, less a good part for the allocator and everybody else."""
    if device.type == "cuda":
        return 0.7 * torch.cuda.get_device_properties(device).total_memory
    return 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
