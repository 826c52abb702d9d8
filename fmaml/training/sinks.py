"""The further outputs of metrics.jsonl's rows, by `train.log_to`. A failing output does not stop the run."""

import contextlib
import csv
import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..config.settings import Config
from ..errors import note
from ..extras import require

LoggedRow = Mapping[str, Any]  # kind, step, seconds and the numbers of that kind; None stands for NaN
NEEDED = ("tensorboard", "wandb")  # the extras, with modules of the same name
CSV_COLUMNS = (
    *("kind", "step", "seconds", "query_loss", "before", "after", "tasks_per_second"),
    *("result", "score", "ci95", "why"),
)
INIT_LIMIT_S = 30.0  # of W&B
NEEDED_BYTES = 64_000  # free on the disk; W&B writes blocks of 32 kB
FINISH_LIMIT_S = 60.0  # of W&B
PROJECT = "fmaml"  # of W&B, unless WANDB_PROJECT is set


class Sink(Protocol):
    """Receives the rows of training, each kind in the order of its steps, then the rows of the test."""

    def write(self, row: LoggedRow, when: float) -> None:
        """Write one row, logged at the time ``when``."""
        ...

    def close(self) -> None:
        """Save or send the written rows; no row follows."""
        ...


class CsvFile:
    """Writes metrics.csv, for a spreadsheet, in the run's folder; missing values are empty cells."""

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
    """Writes a new event file in FOLDER/tensorboard; its first event makes TensorBoard discard earlier files' events.

    Earlier files are kept: if the file that an open TensorBoard reads is deleted, it does not find the new one.
    Rows are written in this thread: the library's own writer uses another thread, where an error would be lost.
    """

    def __init__(self, folder: Path, _: Any) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2  # takes a second, so imported only on demand
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.proto: Any = event_pb2  # its classes are created on import, invisible to type checkers
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

    W&B cannot rewind a run, and cannot resume an offline one. So a resumed run starts a new run of W&B with all the
    rows, in the group of the earlier ones. If the service cannot be reached, the run is written offline for
    `wandb sync`. The user is never asked for a key.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        import wandb  # takes more than a second, so imported only on demand

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
        self.check_room()
        kind = row["kind"]
        if kind not in self.known:  # each kind has steps of its own
            self.known.add(kind)
            self.run.define_metric(f"{kind}/step")
            self.run.define_metric(f"{kind}/*", step_metric=f"{kind}/step")
        name = f"{kind}/{row['result']}" if "result" in row else kind
        numbers = {f"{name}/{key}": value for key, value in row.items() if isinstance(value, float)}
        self.run.log({f"{kind}/step": row["step"], **numbers})

    def check_room(self) -> None:
        """OSError if the disk is full, since W&B drops rows there without an error."""
        files = self.folder / "wandb"  # missing if W&B is disabled
        if files.exists() and shutil.disk_usage(files).free < NEEDED_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Wait until everything is sent, for a minute at most."""
        self.check_room()
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
    """The sinks of a run, as a context manager. A failing sink is reported once and dropped.

    In a resumed run each sink starts empty and receives the earlier rows first. So no row is missing or doubled after
    an interruption.
    """

    def __init__(self, folder: Path, config: Config, names: Iterable[str]) -> None:
        self.open: dict[str, Sink] = {}
        self.prefix = ""  # before the kinds of rows: the name of a second training
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
        """Write earlier rows to every sink, with their original time differences, ending now."""
        now = time.time()
        for row in rows:
            self.write(row, now + row["seconds"] - rows[-1]["seconds"])

    def write(self, row: LoggedRow, when: float | None = None) -> None:
        """Write a row to every sink. ``when`` is its time; default: now."""
        when = time.time() if when is None else when
        named = {**row, "kind": self.prefix + row["kind"]}
        for name, sink in list(self.open.items()):
            with self._may_fail(name):
                sink.write(named, when)

    @contextlib.contextmanager
    def of(self, training: str) -> Iterator[None]:
        """Mark the rows written in the block with the name of another training."""
        self.prefix = f"{training}/"
        try:
            yield
        finally:
            self.prefix = ""

    @contextlib.contextmanager
    def _may_fail(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # no failure of a logging library may stop the run
            self.open.pop(name, None)
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
            note(f"train.log_to: {name}: {reason}; nothing more is logged there, and the run continues")


def check_sinks(config: Config) -> None:
    """Raise Error, with the install command, if a sink needs missing packages."""
    for name in config["train"]["log_to"]:
        if name in NEEDED:
            require(f"train.log_to = {name}", name, name)
