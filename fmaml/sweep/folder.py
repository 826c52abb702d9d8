"""The folder of a sweep: new, empty, or that of the sweep to continue; one process at a time writes it."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..checkpoints.run_folder import NOT_WRITABLE_CURE, check_out_folder, new_folder
from ..checkpoints.run_lock import LOCK_FILE, locked, refuse_if_held
from ..errors import Notify, UserError
from ..files.atomic import delete_temporary_files
from .record import SWEEP_FILE

WAIT_S = 120.0  # for runs whose sweep was killed: each stops after its step


def check_sweep_folder(out: str | None, resume: bool) -> None:
    """UserError if the folder cannot be that of a sweep, as far as that shows without creating anything."""
    if not out or not Path(out).is_dir():
        check_out_folder(out, resume)
        return
    folder = Path(out)
    refuse_if_held(folder)
    try:
        files = {entry.name for entry in folder.iterdir()} - {LOCK_FILE}
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}; {NOT_WRITABLE_CURE}") from error
    files = {name for name in files if not (name.startswith(f".{SWEEP_FILE}.") and name.endswith(".tmp"))}
    if not files:
        return
    if SWEEP_FILE not in files:
        what = "one run" if "config.yaml" in files else "files already"
        raise UserError(f"--out {folder}: holds {what}, and no sweep; name a new folder")
    if not resume:
        raise UserError(f"--out {folder}: holds a sweep already; add --resume to continue it, or name a new folder")


@contextlib.contextmanager
def sweep_folder(out: str | None, name: str, resume: bool) -> Iterator[Path]:
    """The sweep's folder, created if it does not exist, and locked for the duration of the block."""
    folder = Path(out or "runs")
    with contextlib.ExitStack() as stack:
        try:
            folder = folder if out else new_folder(folder / name)
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder))
            delete_temporary_files(folder)
        except OSError as error:
            raise UserError(f"--out {folder}: {error.strerror}; {NOT_WRITABLE_CURE}") from error
        yield folder


def wait_until_free(folders: Sequence[Path], notify: Notify, wait_s: float = WAIT_S) -> None:
    """Wait for runs that a killed sweep has left, which stop after their step; UserError for one that does not."""
    end, told = time.monotonic() + wait_s, False
    for folder in folders:
        while True:
            try:
                refuse_if_held(folder)
                break
            except UserError:
                if time.monotonic() > end:
                    raise
            if not told:
                notify(f"waiting for {folder}: a run of the sweep before this one is still to stop")
                told = True
            time.sleep(0.05)
