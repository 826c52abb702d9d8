"""What the system allows the process, looked at before torch is imported; and how to tell that it was not enough.

Where torch lacks memory it does not always raise: some of its libraries end the process in their own words.
"""

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from ..errors import Error

OUT_OF_MEMORY_TEXTS = (  # parts of the messages of torch, its libraries, the loader of libraries and Python
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "bad_alloc",
    "could not create a primitive",
    "could not execute a primitive",
    "failed to map segment",
    "calculation overflowed",
    "multiplication overflow",
    "overflow when unpacking",
    "too big to convert",
    "too large to convert",
    "index-sized integer",
    "status_alloc_failed",  # of cuDNN and cuBLAS
)


def least_address_space() -> int:
    """Bytes of address space: with less, libraries of torch were seen to end the process themselves.

    Torch built for CUDA maps its libraries for it whether there is a GPU or not, by their size alone 3.3 GB.
    """
    torch = importlib.util.find_spec("torch")  # does not import it
    folders = (torch and torch.submodule_search_locations) or []
    with_cuda = any((Path(folder) / "lib" / "libtorch_cuda.so").exists() for folder in folders)
    return 5_000_000_000 if with_cuda else 1_600_000_000


LEAST_ADDRESS_SPACE = least_address_space()
MEMORY_CURE = "close other programs, or raise the limit on memory (`ulimit -v`)"
NO_MORE_THREADS = "can't start new thread"  # Python's message
THREADS_CURE = (
    "the system starts no more threads; close other programs, or raise the limit on processes (`ulimit -u`) "
    "or on memory (`ulimit -v`)"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error, by its type or its message, means that memory ran out."""
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS)


def check_address_space() -> None:
    """Raise Error if the process may not use as much memory as a small run takes."""
    limit = address_space_limit()
    if limit is not None and limit < LEAST_ADDRESS_SPACE:
        raise Error(
            f"out of memory: this process may use {limit / 1e6:,.0f} MB of address space (`ulimit -v`), and torch "
            f"takes {LEAST_ADDRESS_SPACE / 1e6:,.0f} MB or more; raise the limit: `ulimit -v unlimited`"
        )


def address_space_limit() -> int | None:
    """The limit on the process's address space in bytes; None if there is none."""
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


@contextlib.contextmanager
def importing_torch() -> Iterator[None]:
    """Raise Error where torch cannot be imported for want of memory, or could be but would lack it soon after."""
    check_address_space()
    try:
        yield
    except (ImportError, MemoryError, OSError) as error:
        if is_out_of_memory(error):
            raise Error(f"out of memory while torch is imported; {MEMORY_CURE}") from error
        raise
