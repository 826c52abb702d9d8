"""Where the rows of metrics.jsonl also go, if `train.log_to` asks for it. None of it can stop a run."""

import contextlib
import csv
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..config.settings import Config
from ..errors import note
from ..extras import require

LoggedRow = Mapping[str, Any]  # kind, step, seconds and the numbers of that kind, of which None stands for NaN
NEEDED = ("tensorboard", "wandb")  # an extra, and the module of the same name
CSV_COLUMNS = (
    *("kind", "step", "seconds", "query_loss", "before", "after", "tasks_per_second"),
    *("result", "score", "ci95", "why"),
)
INIT_LIMIT_S = 30.0  # of W&B
FINISH_LIMIT_S = 60.0  # of W&B
PROJECT = "fmaml"  # of W&B, unless WANDB_PROJECT says another


class Sink(Protocol):
    """Takes rows: those of a training, each kind in the order of its steps, and those of the test."""

    def write(self, row: LoggedRow, when: float) -> None:
        """Take one row, which was logged at this time."""
        ...

    def close(self) -> None:
        """Keep or send what was taken; no row comes after it."""
        ...


class CsvFile:
    """Writes metrics.csv, for a spreadsheet, in the run's folder; what a row lacks is an empty cell."""

    def __init__(self, folder: Path, _: Any) -> None:
        self.file = (folder / "metrics.csv").open("w", encoding="utf-8", newline="")
        self.rows = csv.DictWriter(self.file, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
        self.rows.writeheader()

    def write(self, row: LoggedRow, when: float) -> None:
        self.rows.writerow(dict(row))
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class EventFile:
    """Writes a new event file in FOLDER/tensorboard; its first event makes TensorBoard drop what earlier ones held.

    Those are kept: a TensorBoard that is open would not find the new file if the one that it reads were gone.
    Rows are written at once: the library's own writer does so in a thread, where an error would be lost.
    """

    def __init__(self, folder: Path, _: Any) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2  # takes a second, so only where it is wanted
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.proto: Any = event_pb2  # whose classes are made as it is imported, where no type checker sees them
        self.summary: Any = summary_pb2.__dict__["Summary"]
        here = folder / "tensorboard"
        here.mkdir(exist_ok=True)
        self.file = (here / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}.fmaml").open("xb")
        self.records = RecordWriter(self.file)
        self._add(wall_time=time.time(), file_version="brain.Event:2")
        begin = self.proto.SessionLog(status=self.proto.SessionLog.START)
        self._add(wall_time=time.time(), step=0, session_log=begin)

    def write(self, row: LoggedRow, when: float) -> None:
        name = row["kind"] + (f"/{row['result']}" if "result" in row else "")
        values = [
            self.summary.Value(tag=f"{name}/{key}", simple_value=value)
            for key, value in row.items()
            if isinstance(value, float) and key != "seconds"
        ]
        self._add(wall_time=when, step=row["step"], summary=self.summary(value=values))

    def _add(self, **event: Any) -> None:
        self.records.write(self.proto.Event(**event).SerializeToString())
        self.records.flush()

    def close(self) -> None:
        self.file.close()


class WeightsAndBiases:
    """A run of W&B, with FOLDER/wandb for its files.

    Its history can be added to, but not rewound, and not at all where it is written offline. So a resumed run is a new
    one of W&B, with all the rows, in one group with the earlier ones. Where the service cannot be reached, the run is
    written offline, for `wandb sync`; nobody is asked for a key.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        import wandb  # takes more than a second, so only where it is wanted

        self.folder = folder
        self.known: set[str] = set()  # kinds of rows
        quiet = wandb.Settings(silent=True, console="off", init_timeout=INIT_LIMIT_S)
        wandb.setup(quiet)
        about: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT") or PROJECT,
            "dir": folder,
            "name": f"{config['name']} {folder.name}",
            "group": folder.name,
            "config": config,
            "settings": quiet,
        }
        try:
            self.run = wandb.init(**about)
        except wandb.Error as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            note(f"train.log_to: wandb: {reason}; written offline; `wandb sync` sends {folder / 'wandb'}")
            self.run = wandb.init(**about, mode="offline")

    def write(self, row: LoggedRow, when: float) -> None:
        kind = row["kind"]
        if kind not in self.known:  # each kind has steps of its own
            self.known.add(kind)
            self.run.define_metric(f"{kind}/step")
            self.run.define_metric(f"{kind}/*", step_metric=f"{kind}/step")
        name = f"{kind}/{row['result']}" if "result" in row else kind
        numbers = {f"{name}/{key}": value for key, value in row.items() if isinstance(value, float)}
        self.run.log({f"{kind}/step": row["step"], **numbers})

    def close(self) -> None:
        """Wait until everything is sent, but no longer than a minute."""
        errors: list[Exception] = []

        def finish() -> None:
            try:
                self.run.finish()
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=finish, daemon=True)
        thread.start()
        thread.join(FINISH_LIMIT_S)
        if errors:
            raise errors[0]
        if thread.is_alive():
            raise TimeoutError(f"not all was sent in {FINISH_LIMIT_S:g} s; `wandb sync` sends {self.folder / 'wandb'}")


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
    """Error with the command that installs them, if a sink needs packages that are missing."""
    for name in config["train"]["log_to"]:
        if name in NEEDED:
            require(f"train.log_to = {name}", name, name)
