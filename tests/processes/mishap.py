"""Two processes with something changed in them, in most cases a mishap in the second; started by tests here."""

import contextlib
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fmaml import distributed
from fmaml.cli.main import main
from fmaml.errors import Ended, Error
from fmaml.processes.join import joined
from fmaml.processes.launcher import launched
from fmaml.training import step

ERRORS = {"ValueError": ValueError, "RuntimeError": RuntimeError, "Error": Error}


def raise_in_the_second(name: str) -> None:
    """An error of this type, while the first process waits for the second."""
    with contextlib.suppress(Ended), joined(launched(), torch.device("cpu")):
        if distributed.rank():
            raise ERRORS[name]("the socket of the wall, a peer, a timeout")
        distributed.gather(0)


def differ(words: list[str]) -> int:
    """A command that names a file of the process's own."""
    return main([word.replace("RANK", os.environ["RANK"]) for word in words])


def with_little_memory(words: list[str]) -> int:
    """A command; the second process cannot hold more than 6 tasks in memory at a time."""
    meta_step = step.meta_step

    def little(*args: Any, chunk_size: int | None, **options: Any) -> Any:
        if distributed.rank() and (chunk_size or 13) > 6:
            raise MemoryError
        return meta_step(*args, chunk_size=chunk_size, **options)

    step.meta_step = little
    return main(words)


def compiled_by(backend: str, words: list[str]) -> int:
    """A command whose steps are compiled by this backend of `torch.compile`."""
    step.compiled = partial(step.compiled, backend=backend)
    return main(words)


def threads_left() -> None:
    """Print how many threads of the connections are left after the processes have parted."""
    with joined(launched(), torch.device("cpu")):
        torch.func.grad(torch.sum)(torch.ones(3))
        distributed.gather(0)
    names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    sys.stdout.write(f"threads: {sum('gloo' in name for name in names)}\n")  # both may be on one line
    sys.stdout.flush()


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what in ERRORS:
        raise_in_the_second(what)
    elif what == "threads":
        threads_left()
    elif what == "memory":
        sys.exit(with_little_memory(words))
    elif what.startswith("backend="):
        sys.exit(compiled_by(what.removeprefix("backend="), words))
    else:
        sys.exit(differ([what, *words]))
