"""Memory: what it means that there is too little, one line that names what to lower, and glibc's allocator."""

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from typing import Any

import torch

from ..config.validate import marked
from ..errors import UserError
from ..ranges import CostsMemory
from ..tree import leaves
from ..types import Model

OUT_OF_MEMORY = (  # what torch and Python say
    "can't allocate memory",
    "out of memory",
    "bad_alloc",
    "calculation overflowed",
    "multiplication overflow",
    "overflow when unpacking",
    "too big to convert",
    "too large to convert",
    "index-sized integer",
)
SHORTAGE = (MemoryError, OverflowError, RuntimeError, TypeError)  # that may be about memory
COPIES = 4  # of the parameters at least: theta, its gradient, two means of Adam's
MOST_NAMED = 3  # settings in a message
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h


def out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in OUT_OF_MEMORY)


@contextlib.contextmanager
def named_if_too_large(config: dict[str, Any]) -> Iterator[None]:
    """UserError where there is not memory enough for what is done here."""
    try:
        yield
    except SHORTAGE as error:
        if out_of_memory(error):
            raise UserError(f"out of memory; lower the largest of {', '.join(costly(config))}") from error
        raise


def check_size(config: dict[str, Any], model: Model, device: torch.device) -> None:
    """UserError before minutes are spent on parameters that cannot be held."""
    with torch.device("meta"):  # shapes without numbers
        need = COPIES * sum(leaf.numel() * leaf.element_size() for leaf in leaves(model.init(torch.Generator())))
    have = capacity(device)
    if need > have:
        raise UserError(
            f"the network takes {need / 1e9:,.0f} GB in training, and {device} has {have / 1e9:,.0f}; "
            f"lower the largest of {', '.join(costly(config))}"
        )


def capacity(device: torch.device) -> int:
    """Bytes that the device has, in use or not."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def costly(config: dict[str, Any]) -> list[str]:
    """The settings that memory depends on, the largest first, as ``model.width = 64``."""
    sizes = {key: value for key, value in marked(config, CostsMemory).items() if value is not None}
    largest = sorted(sizes, key=lambda key: -max(sizes[key] if isinstance(sizes[key], list) else [sizes[key]]))
    return [f"{key} = {sizes[key]}" for key in largest[:MOST_NAMED]]


def keep_freed_memory() -> bool:
    """Let the allocator keep large blocks for reuse; True if it agreed.

    glibc gives big temporaries back to the system and faults them in again at the next step, which makes a vmapped
    meta-step on a CPU about twice as slow as it need be. Elsewhere nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL("libc.so.6")
    settings = {M_MMAP_THRESHOLD: 1 << 30, M_TRIM_THRESHOLD: (1 << 31) - 1, M_TOP_PAD: 256 << 20}
    return all(libc.mallopt(option, value) == 1 for option, value in settings.items())
