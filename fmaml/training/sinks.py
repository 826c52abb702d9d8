"""Where the rows of metrics.jsonl also go, if `train.log_to` asks for it. None of it can stop a run."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..config.settings import Config
from ..errors import note
from ..extras import require
from .csv_file import CsvFile
from .event_file import EventFile
from .weights_biases import WeightsAndBiases

LoggedRow = Mapping[str, Any]  # kind, step, seconds and the numbers of that kind, of which None stands for NaN
NEEDED = ("tensorboard", "wandb")  # an extra, and the module of the same name


class Sink(Protocol):
    """Takes rows: those of a training, each kind in the order of its steps, and those of the test."""

    def write(self, row: LoggedRow, when: float) -> None:
        """Take one row, which was logged at this time."""
        ...

    def close(self) -> None:
        """Keep or send what was taken; no row comes after it."""
        ...


Open = Callable[[Path, Config], Sink]
SINKS: dict[str, Open] = {"csv": CsvFile, "tensorboard": EventFile, "wandb": WeightsAndBiases}


class Sinks:
    """The sinks of a run: one that fails is named once and left out; a context manager.

    Each begins anew and is first given the rows that a resumed run goes on from, so that nothing is there twice,
    and nothing is missing, whatever an interruption has left.
    """

    def __init__(self, folder: Path, config: Config, names: Iterable[str]) -> None:
        self.open: dict[str, Sink] = {}
        self.prefix = ""  # of the kinds of rows: another training than the first one has a name
        for name in dict.fromkeys(names):
            with self._may_fail(name):
                self.open[name] = SINKS[name](folder, config)

    def __enter__(self) -> "Sinks":
        return self

    def __exit__(self, *_: object) -> None:
        for name, sink in list(self.open.items()):
            with self._may_fail(name):
                sink.close()
        self.open = {}

    def replay(self, rows: Sequence[LoggedRow]) -> None:
        """Give every sink what was logged before: as far apart as it was, up to now."""
        now = time.time()
        for row in rows:
            self.write(row, now + row["seconds"] - rows[-1]["seconds"])

    def write(self, row: LoggedRow, when: float | None = None) -> None:
        """Give a row to every sink; ``when`` it was logged is now if it is not given."""
        when = time.time() if when is None else when
        named = {**row, "kind": self.prefix + row["kind"]}
        for name, sink in list(self.open.items()):
            with self._may_fail(name):
                sink.write(named, when)

    @contextlib.contextmanager
    def of(self, training: str) -> Iterator[None]:
        """Within it the rows are of another training, which this names."""
        self.prefix = f"{training}/"
        try:
            yield
        finally:
            self.prefix = ""

    @contextlib.contextmanager
    def _may_fail(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a library raises: it is not what the run is for
            self.open.pop(name, None)
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
            note(f"train.log_to: {name}: {reason}; nothing more goes there, and the run goes on")


def check_sinks(config: Config) -> None:
    """UserError with the command that installs them, if a sink needs packages that are missing."""
    for name in config["train"]["log_to"]:
        if name in NEEDED:
            require(f"train.log_to = {name}", name, name)
