"""What a disk may hold after the power went: replayed, since the kernel keeps what a killed process wrote.

The operations of a run are noted. A power cut after any of them loses what was not synced, in whole or in part, and
may keep or lose names that the folder was not synced for. In each such state there must be a sound checkpoint, and
none older than the last one that was complete.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from harness import in_place, shimmed

from fmaml.checkpoints.checkpoint_format import DamagedCheckpoint, decode_checkpoint
from fmaml.checkpoints.checkpoint_store import CheckpointStore, checkpoint_files
from fmaml.checkpoints.progress import Progress
from fmaml.types import MetaState

Operation = tuple  # ("write", path, bytes), ("fsync", path), ("replace", path, path), ("unlink", path), ("done", step)


def recorded(folder: Path, steps: int) -> list[Operation]:
    """What `CheckpointStore.save` does to the disk, for some steps."""
    trace: list[Operation] = []
    unlink = Path.unlink

    def act(reached: str, args: tuple) -> None:
        when, operation = reached.split()
        if when == "before" and operation in ("write", "fsync"):
            path = Path(os.readlink(f"/proc/self/fd/{args[0]}"))
            trace.append(("write", path, bytes(args[1])) if operation == "write" else ("fsync", path))
        elif when == "before" and operation == "replace":
            trace.append(("replace", Path(args[0]), Path(args[1])))

    def noted(self: Path, missing_ok: bool = False) -> None:
        trace.append(("unlink", self))
        unlink(self, missing_ok)

    store = CheckpointStore(folder, {}, in_place)
    store.checkpoints.mkdir(parents=True)
    Path.unlink = noted
    try:
        with shimmed(act):
            for step in range(steps):
                theta = {"w": torch.arange(300.0) + step}
                store.save(Progress(MetaState(theta, (), step), float("-inf"), theta))
                trace.append(("done", step))
    finally:
        Path.unlink = unlink
    return trace


class Disk:
    """Names and contents, of which a part is only in memory."""

    def __init__(self) -> None:
        self.files: dict[int, list[bytes]] = {}  # a file's number -> [what is in memory, what is on the disk]
        self.names: dict[Path, int] = {}
        self.safe: dict[Path, int] = {}  # the names that the disk knows

    def do(self, operation: str, path: Path, *more) -> None:
        if operation == "write":
            number = self.names.setdefault(path, len(self.files))
            self.files.setdefault(number, [b"", b""])[0] += more[0]
        elif operation == "fsync" and path in self.names:
            file = self.files[self.names[path]]
            file[1] = file[0]
        elif operation == "fsync":  # the folder
            self.safe = dict(self.names)
        elif operation == "replace":
            self.names[more[0]] = self.names.pop(path)
        elif operation == "unlink":
            del self.names[path]

    def after_a_cut(self) -> Iterator[dict[Path, bytes]]:
        """Every state: each set of names, with what was not synced lost, half there, or zeros."""
        for names in (self.names, self.safe):
            for fate in ("lost", "half", "zeros", "kept"):
                yield {path: self.left(number, fate) for path, number in names.items()}

    def left(self, number: int, fate: str) -> bytes:
        memory, disk = self.files[number]
        if memory == disk or fate == "kept":
            return memory
        return {"lost": disk, "half": memory[: len(memory) // 2], "zeros": bytes(len(memory))}[fate]


def newest(state: dict[Path, bytes], folder: Path) -> int:
    """The step that a run would go on from; -1 for none."""
    for path in folder.iterdir():
        path.unlink()
    for path, content in state.items():
        (folder / path.name).write_bytes(content)
    for path in checkpoint_files(folder):
        try:
            return decode_checkpoint(path.read_bytes())[1]["step"]
        except DamagedCheckpoint:
            continue
    return -1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names are read from /proc")
def test_there_is_a_sound_checkpoint_after_every_power_cut(tmp_path):
    trace = recorded(tmp_path / "run", 8)
    disk, done, states, scratch = Disk(), -1, 0, tmp_path / "scratch"
    scratch.mkdir()
    for operation in trace:
        if operation[0] == "done":
            done = operation[1]
        else:
            disk.do(*operation)
        for state in disk.after_a_cut():
            states += 1
            assert newest(state, scratch) >= done, (operation, sorted(path.name for path in state))
    print(states)
    assert states >= 300, states
