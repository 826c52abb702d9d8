"""Memory: recognising that it ran out, naming the settings to lower, and configuring glibc's allocator."""

import contextlib
import ctypes
import math
import os
import platform
from collections.abc import Iterator

import torch

from ..config.settings import Config
from ..config.validate import marked_settings
from ..errors import Error, RunFailed
from ..processes.limits import NO_MORE_THREADS, THREADS_CURE, is_out_of_memory
from ..setting_types import CostsMemory
from ..tree import leaves
from ..types import Model

# what torch and Python raise for want of memory
MEMORY_ERRORS = (MemoryError, OverflowError, RuntimeError, TypeError, ImportError)
PARAMETER_COPIES = 4  # held in training at least: theta, its gradient and Adam's two means
MAX_SETTINGS_NAMED = 3  # in a message
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # from glibc's malloc.h


class TaskTooLarge(MemoryError):
    """Not even one task fits in memory during training."""


@contextlib.contextmanager
def explain_out_of_memory(config: Config) -> Iterator[None]:
    """Raise Error, naming the settings to change, where the block runs out of memory; in training RunFailed."""
    try:
        yield
    except TaskTooLarge as error:
        raise RunFailed(f"out of memory with one task at a time; {less_memory(config)}") from error
    except MEMORY_ERRORS as error:
        if NO_MORE_THREADS in str(error):
            raise Error(THREADS_CURE) from error
        if is_out_of_memory(error):
            raise Error(f"out of memory; {less_memory(config)}") from error
        raise


def less_memory(config: Config) -> str:
    """What to change to need less memory: the largest settings, and switches that the algorithm has."""
    algorithm = config["algorithm"]
    switches = [f"algorithm.{key}=true" for key in ("remat", "first_order") if algorithm.get(key) is False]
    lower = f"lower the largest of {', '.join(largest_settings(config))}"
    return " or ".join([f"{lower}, or set {switches[0]}", *switches[1:]]) if switches else lower


def check_model_fits(config: Config, model: Model, device: torch.device) -> None:
    """Raise Error if the parameters and what training keeps of their size exceed the device's memory."""
    with torch.device("meta"):  # shapes without numbers
        params = model.init(torch.Generator())
    needed = PARAMETER_COPIES * sum(leaf.numel() * leaf.element_size() for leaf in leaves(params))
    total = device_memory(device)
    if needed > total:
        raise Error(
            f"the network takes {needed / 1e9:,.0f} GB in training, and {device} has {total / 1e9:,.0f}; "
            f"{less_memory(config)}"
        )


def device_memory(device: torch.device) -> float:
    """Bytes of memory that the device has, used or free; infinity where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if not hasattr(os, "sysconf"):  # Windows
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def largest_settings(config: Config) -> list[str]:
    """The settings that memory depends on, largest value first, such as ``model.width = 64``."""
    values = {key: value for key, value in marked_settings(config, CostsMemory).items() if value is not None}

    def size(key: str) -> int:
        return max(values[key]) if isinstance(values[key], list) else values[key]

    largest_first = sorted(values, key=size, reverse=True)
    return [f"{key} = {values[key]}" for key in largest_first[:MAX_SETTINGS_NAMED]]


def keep_freed_memory() -> bool:
    """Let the allocator keep large blocks for reuse; True if it accepted.

    By default glibc returns large temporaries to the system and faults them in again at the next step, which makes a
    vmapped meta-step on a CPU take about twice as long. Without glibc nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL("libc.so.6")
    settings = {M_MMAP_THRESHOLD: 1 << 30, M_TRIM_THRESHOLD: (1 << 31) - 1, M_TOP_PAD: 256 << 20}
    return all(libc.mallopt(option, value) == 1 for option, value in settings.items())
