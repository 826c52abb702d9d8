"""Whether the user's cache folder may be written to, which a dry run forbids."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_allowed = ContextVar("allowed", default=True)


def writing_allowed() -> bool:
    """Whether what was computed may be kept, and what is missing downloaded."""
    return _allowed.get()


@contextlib.contextmanager
def writing(allowed: bool) -> Iterator[None]:
    """Inside, `writing_allowed` is ``allowed``."""
    token = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(token)
