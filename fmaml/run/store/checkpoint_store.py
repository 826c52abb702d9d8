"""A run's checkpoints: written one after the other, the newest intact one read again, the last two kept."""

import re
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

from ...atomic_files import delete_temporary_files, write_durably
from ...errors import RunFailed, Say
from ...types import MetaState, Theta
from ..nan_guard import is_finite
from .checkpoint_format import DamagedCheckpoint, decode_checkpoint, encode_checkpoint, fill, flatten, save_params
from .resume_compatibility import compare
from .run_folder import free_space, megabytes

KEPT_CHECKPOINTS = 2


class Progress(NamedTuple):
    """All that a run goes on from. Sampling depends on (seed, step) alone, so no generator state is saved."""

    state: MetaState
    best: float  # score; higher is better; -inf: none yet
    best_theta: Theta
    validated: int = 0  # the last step that was
    skipped: int = 0  # steps thrown away since a number was not finite


class CheckpointStore:
    """The checkpoints in one folder, and beside them the best and the last parameters.

    ``facts`` say what else must agree for a run to go on: config, data, versions.
    """

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.folder, self.facts = folder, facts
        self.checkpoints = folder / "checkpoints"
        self.saved_step = -1  # of the newest checkpoint
        self.saved: Progress | None = None  # what is in it
        self.written_best: Theta = None  # what is in best.safetensors
        self.begun = time.perf_counter()

    def seconds(self) -> float:
        """Spent on this run, those before an interruption included."""
        return time.perf_counter() - self.begun

    def path(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:09d}.ckpt"

    def restore(self, start: Progress, say: Say) -> Progress:
        """Where the newest intact checkpoint left off, or ``start``, which is then the first checkpoint."""
        self.checkpoints.mkdir(exist_ok=True)
        delete_temporary_files(self.checkpoints)
        files = checkpoint_files(self.checkpoints)
        damaged: list[Path] = []
        for path in files:
            try:
                progress = self._read(path, start, say)
            except (DamagedCheckpoint, OSError) as error:
                say(f"{path}: damaged ({error}); it is not used")
                damaged.append(path)
                continue
            for bad in damaged:
                bad.rename(bad.with_suffix(".damaged"))
            self.saved_step, self.saved = progress.state.step, progress
            say(f"going on from {path}, after step {self.saved_step}")
            return progress
        if files or _has_rows(self.folder / "metrics.jsonl"):
            what = f"all {len(files)} checkpoints are damaged" if files else "its checkpoints are gone"
            raise RunFailed(f"{self.folder}: {what}, and a run never begins again unasked; name a new --out to do so")
        self.save(start)
        return start

    def _read(self, path: Path, start: Progress, say: Say) -> Progress:
        tensors, facts = decode_checkpoint(path.read_bytes())
        if missing := {*self.facts, "step", "best", "validated", "skipped", "seconds"} - facts.keys():
            raise DamagedCheckpoint(f"it lacks {', '.join(sorted(missing))}")
        if path != self.path(facts["step"]):
            raise DamagedCheckpoint(f"it is of step {facts['step']}")
        compare(self.folder, facts, self.facts, say)
        theta = fill(start.state.theta, tensors, "theta.")
        opt_state = fill(start.state.opt_state, tensors, "optimizer.")
        best_theta = fill(start.best_theta, tensors, "best.")
        self.begun = time.perf_counter() - facts["seconds"]
        best = float("-inf") if facts["best"] is None else facts["best"]
        state = MetaState(theta, opt_state, facts["step"])
        return Progress(state, best, best_theta, facts["validated"], facts["skipped"])

    def save(self, progress: Progress) -> None:
        """Write a new checkpoint, unless it is there already, and delete those that are no longer needed."""
        if progress is self.saved:
            return
        state = progress.state
        if not is_finite((state.theta, state.opt_state, progress.best_theta)):
            raise RunFailed(f"step {state.step}: theta or the optimizer's state is not finite; it was not saved")
        numbers = {
            "step": state.step,
            "best": progress.best if progress.best > float("-inf") else None,
            "validated": progress.validated,
            "skipped": progress.skipped,
            "seconds": round(self.seconds(), 3),
        }
        tensors = flatten(state.theta, "theta.") | flatten(state.opt_state, "optimizer.")
        content = encode_checkpoint(tensors | flatten(progress.best_theta, "best."), self.facts | numbers)
        if self.saved_step < 0:
            check_disk_space(self.folder, (KEPT_CHECKPOINTS + 2) * len(content))
        self._write(self.path(state.step), content)
        self.saved = progress
        if numbers["best"] is not None:
            self._write_best(progress.best_theta)

    def finish(self, progress: Progress) -> None:
        """Write the last checkpoint, and the best and the last parameters as files of their own."""
        self.save(progress)
        self._write_best(progress.best_theta)
        save_params(self.folder / "last.safetensors", progress.state.theta)

    def _write_best(self, theta: Theta) -> None:
        if theta is not self.written_best:
            save_params(self.folder / "best.safetensors", theta)
            self.written_best = theta

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_durably(path, content)
        except OSError as error:
            before = f"step {self.saved_step} is safe" if self.saved_step >= 0 else "there is none before it"
            raise RunFailed(
                f"{path}: cannot save a checkpoint ({error.strerror}): it needs {megabytes(len(content))}, "
                f"{free_space(path.parent)} are free; {before}. Make room, then `fmaml resume {self.folder}`"
            ) from error
        self.saved_step = int(path.stem.removeprefix("step-"))
        for old in checkpoint_files(self.checkpoints)[KEPT_CHECKPOINTS:]:
            old.unlink()


def checkpoint_files(checkpoints: Path) -> list[Path]:
    """The checkpoints, newest first."""
    names = (path for path in checkpoints.glob("step-*.ckpt") if re.fullmatch(r"step-\d{9}", path.stem))
    return sorted(names, reverse=True)


def check_disk_space(folder: Path, need: int) -> None:
    if shutil.disk_usage(folder).free < need:
        raise RunFailed(f"{folder}: a run needs {megabytes(need)} there, and {free_space(folder)} are free; make room")


def _has_rows(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
