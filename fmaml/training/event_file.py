"""The rows of a run as an event file, which TensorBoard shows."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class EventFile:
    """Writes a new file in FOLDER/tensorboard, whose first event has TensorBoard drop what it read in earlier ones.

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

    def write(self, row: Mapping[str, Any], when: float) -> None:
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
