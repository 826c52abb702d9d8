"""Out of memory: recognise it, name the settings to lower, and configure glibc's allocator."""

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

# the exceptions of torch and Python when memory runs out
MEMORY_ERRORS = (MemoryError, OverflowError, RuntimeError, TypeError, ImportError)
PARAMETER_COPIES = 4  # in memory during training, at least: theta, its gradient and Adam's two means
MAX_SETTINGS_NAMED = 3  # in a message
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # from glibc's malloc.h


class TaskTooLarge(MemoryError):
    """Not even one task fits in memory during training."""


@contextlib.contextmanager
def explain_out_of_memory(config: Config) -> Iterator[None]:
    """If the block runs out of memory, raise an error that names the settings to change.

    It is RunFailed if one task at a time is too large in training, else Error.
    """
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
    """The settings that reduce memory: the largest ones, and the algorithm's switches."""
    algorithm = config["algorithm"]
    switches = [f"algorithm.{key}=true" for key in ("remat", "first_order") if algorithm.get(key) is False]
    lower = f"lower the largest of {', '.join(largest_settings(config))}"
    return " or ".join([f"{lower}, or set {switches[0]}", *switches[1:]]) if switches else lower


def check_model_fits(config: Config, model: Model, device: torch.device) -> None:
    """Raise Error if the parameters, their gradient and Adam's means exceed the device's memory."""
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
    """The device's total memory in bytes; infinity if the system does not tell."""
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
    """Let glibc's allocator keep large blocks for reuse; True if it accepted. Without glibc nothing changes.

    By default glibc returns large temporaries to the system and faults them in again at the next step. A vmapped
    meta-step on a CPU then takes about twice as long.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL("libc.so.6")
    settings = {M_MMAP_THRESHOLD: 1 << 30, M_TRIM_THRESHOLD: (1 << 31) - 1, M_TOP_PAD: 256 << 20}
    return all(libc.mallopt(option, value) == 1 for option, value in settings.items())
