"""What the processes of a run other than the first have in the place of files and output: nothing is written."""

import contextlib
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ..checkpoints.checkpoint_store import Progress
from ..errors import Notify


def follows() -> None:
    """A run's folder is not theirs to check."""


class NoStore:
    """In the place of a `CheckpointStore`."""

    folder, metadata, check_folder = Path(), None, staticmethod(follows)
    facts: ClassVar[dict[str, Any]] = {}

    def restore(self, start: Progress, notify: Notify) -> Progress:
        return start

    def save(self, progress: Progress) -> None: ...

    def finish(self, progress: Progress) -> None: ...

    def seconds(self) -> float:
        return 0.0


class NoLog:
    """In the place of a `RunLog`."""

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *_: object) -> None: ...

    def record(self, kind: str, step: int, **numbers: Any) -> None: ...

    def notify(self, line: str) -> None: ...

    def stepped(self, step: int) -> None: ...

    def timed(self, what: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def sync(self) -> None: ...


class NoScores:
    """In the place of `SavedScores`."""

    def find(self, column: str, tasks: range) -> Tensor | None:
        return None

    def add(self, column: str, tasks: range, scores: Tensor) -> None: ...
