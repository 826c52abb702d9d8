"""A run's checkpoints. The last two are kept; a resumed run continues from the newest intact one."""

import errno
import re
import shutil
import time
from pathlib import Path

from ..errors import Notify, RunFailed
from ..files.atomic import delete_temporary_files, write_durably
from ..files.plain_text import megabytes
from ..files.regular import read_regular
from ..tree import is_finite, leaves
from ..types import MetaState
from .checkpoint_format import (
    DamagedCheckpoint,
    Facts,
    OtherVersion,
    decode_checkpoint,
    encode_checkpoint,
    fill,
    flatten,
)
from .folder_watch import CheckFolder
from .progress import Progress, SavedFacts
from .resume_compatibility import check_compatible
from .run_folder import free_space

KEPT_CHECKPOINTS = 2
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MIN_SIZE_LIMIT = 1 << 28  # bytes: enough to read a checkpoint of other settings, and name the differences


class CheckpointStore:
    """Reads and writes the checkpoints of one folder.

    ``facts`` (config, data, versions) must agree when a run is resumed. ``check_folder`` raises RunFailed if the run's
    folder is gone.
    """

    def __init__(self, folder: Path, facts: Facts, check_folder: CheckFolder) -> None:
        self.folder = folder
        self.facts = facts
        self.check_folder = check_folder
        self.checkpoints = folder / "checkpoints"
        self.saved_step = -1  # of the newest checkpoint
        self.saved_progress: Progress | None = None  # in the newest checkpoint
        self.started = time.perf_counter()

    def seconds(self) -> float:
        """Seconds spent on this run, including the time before an interruption; 0 if the clock went back."""
        return max(0.0, time.perf_counter() - self.started)

    def path(self, step: int) -> Path:
        """The file of the checkpoint after ``step`` meta-steps."""
        return self.checkpoints / f"step-{step:09d}.ckpt"

    def restore(self, start: Progress, notify: Notify) -> Progress:
        """Restore the newest intact checkpoint; in a new folder, save ``start`` as the first one and return it.

        Raises RunFailed if an earlier run has left no intact checkpoint, Error if its facts differ from this run's.
        """
        self.checkpoints.mkdir(exist_ok=True)
        delete_temporary_files(self.checkpoints)
        files = checkpoint_files(self.checkpoints)
        damaged: list[Path] = []
        kinds: set[str] = set()
        for path in files:
            try:
                progress = self._read(path, start, notify)
            except (DamagedCheckpoint, OSError) as error:
                kind = "of another version of fmaml" if isinstance(error, OtherVersion) else "damaged"
                notify(f"{path}: {kind} ({error}); it is not used")
                kinds.add(kind)
                damaged.append(path)
                continue
            for bad in damaged:
                bad.rename(bad.with_suffix(".damaged"))
            self.saved_step = progress.state.step
            self.saved_progress = progress
            notify(f"continuing from {path}, after step {self.saved_step}")
            return progress
        if files or _has_rows(self.folder / "metrics.jsonl"):
            problem = (
                f"all {len(files)} checkpoints are {' or '.join(sorted(kinds))}"
                if files
                else "its checkpoints are missing"
            )
            raise RunFailed(
                f"{self.folder}: {problem}, and a run never restarts by itself; to restart, name a new --out"
            )
        self.save(start)
        return start

    def _read(self, path: Path, start: Progress, notify: Notify) -> Progress:
        tensors, facts = decode_checkpoint(read_regular(path, max_checkpoint_bytes(start)))
        missing = {*self.facts, *SavedFacts.model_fields} - facts.keys()
        if missing:
            raise OtherVersion(f"it lacks {', '.join(sorted(missing))}")
        try:
            saved = SavedFacts.checked(facts)
        except ValueError as error:
            raise DamagedCheckpoint(f"its digest matches, but not its facts: {error}") from None
        if path != self.path(saved.step):
            raise DamagedCheckpoint(f"it is of step {saved.step}")
        check_compatible(self.folder, facts, self.facts, notify)
        theta = fill(start.state.theta, tensors, "theta.")
        opt_state = fill(start.state.opt_state, tensors, "optimizer.")
        best_theta = fill(start.best_theta, tensors, "best.")
        self.started = time.perf_counter() - saved.seconds
        best = float("-inf") if saved.best is None else saved.best
        state = MetaState(theta, opt_state, saved.step)
        return Progress(state, best, best_theta, saved.validated, saved.skipped, saved.step_form, saved.without_best)

    def save(self, progress: Progress) -> None:
        """Write a checkpoint, unless it is already saved, and keep only the last two.

        Raises RunFailed if a number is not finite, the disk is full or the run's folder is gone.
        """
        self.check_folder()
        if progress is self.saved_progress:
            return
        state = progress.state
        if not is_finite((state.theta, state.opt_state, progress.best_theta)):
            raise RunFailed(f"step {state.step}: theta or the optimizer's state is not finite; it was not saved")
        numbers = {
            "step": state.step,
            "best": progress.best if progress.best > float("-inf") else None,
            "validated": progress.validated,
            "skipped": progress.skipped,
            "without_best": progress.without_best,
            "step_form": progress.step_form._asdict(),
            "seconds": round(self.seconds(), 3),
        }
        tensors = flatten(state.theta, "theta.") | flatten(state.opt_state, "optimizer.")
        content = encode_checkpoint(tensors | flatten(progress.best_theta, "best."), self.facts | numbers)
        if self.saved_step < 0:
            check_disk_space(self.folder, (KEPT_CHECKPOINTS + 2) * len(content))
        self._write(self.path(state.step), content)
        self.saved_progress = progress

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_durably(path, content)
        except OSError as error:
            self.check_folder()
            before = f"step {self.saved_step} is saved" if self.saved_step >= 0 else "none was saved before it"
            cure = "Make room" if error.errno in FULL else "Repair the disk, or copy the folder to another"
            raise RunFailed(
                f"{path}: cannot save a checkpoint ({error.strerror}): it needs {megabytes(len(content))}, "
                f"{free_space(path.parent)} are free; {before}. {cure}, then `fmaml resume {self.folder}`"
            ) from error
        self.saved_step = int(path.stem.removeprefix("step-"))
        for old in checkpoint_files(self.checkpoints)[KEPT_CHECKPOINTS:]:
            old.unlink()


def checkpoint_files(checkpoints: Path) -> list[Path]:
    """The checkpoint files in a folder, newest first."""
    files = [path for path in checkpoints.glob("step-*.ckpt") if re.fullmatch(r"step-\d{9}", path.stem)]
    return sorted(files, reverse=True)


def max_checkpoint_bytes(start: Progress) -> int:
    """The size limit of checkpoints of a run that begins with ``start``."""
    tensors = leaves((start.state.theta, start.state.opt_state, start.best_theta))
    return MIN_SIZE_LIMIT + 2 * sum(tensor.nbytes for tensor in tensors)


def check_disk_space(folder: Path, needed: int) -> None:
    """Raise RunFailed if fewer than ``needed`` bytes are free on the folder's disk."""
    if shutil.disk_usage(folder).free < needed:
        available = free_space(folder)
        raise RunFailed(f"{folder}: a run needs {megabytes(needed)} there, and {available} are free; make room")


def _has_rows(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
