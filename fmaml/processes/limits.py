"""Check the system's limits before importing torch, and recognise errors that mean too little memory.

Without enough memory torch does not always raise: some of its libraries end the process.
"""

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from ..errors import Error

OUT_OF_MEMORY_TEXTS = (  # in messages of torch, its libraries, the dynamic linker and Python
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
    """The least address space in bytes; with less, libraries of torch were seen to end the process.

    Torch built for CUDA maps 3.3 GB of CUDA libraries, even without a GPU.
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
    """Whether the error's type or message means that memory ran out."""
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS)


def check_address_space() -> None:
    """Raise Error if the process may use less memory than a small run takes."""
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
    """Raise Error if there is too little memory to import torch in the block, or to run afterwards."""
    check_address_space()
    try:
        yield
    except (ImportError, MemoryError, OSError) as error:
        if is_out_of_memory(error):
            raise Error(f"out of memory while importing torch; {MEMORY_CURE}") from error
        raise
