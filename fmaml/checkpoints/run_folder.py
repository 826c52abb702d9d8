"""A run's folder: new, empty, or the folder of the run to resume. Nothing in it is overwritten without --resume."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from ..checkpoints import run_lock
from ..errors import Error
from ..files.atomic import delete_temporary_files
from ..files.plain_text import megabytes
from ..files.regular import read_regular

NOT_WRITABLE_CURE = "name a folder that can be written"
MAX_ENVIRONMENT_BYTES = 1_000_000
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _check_contents(folder: Path, resume: bool) -> None:
    """Raise Error if the folder holds anything but the run to resume."""
    temporary = {path.name for path in folder.glob(".config.yaml.*.tmp")}  # from a run killed before its first file
    files = {entry.name for entry in folder.iterdir()} - {run_lock.LOCK_FILE, *temporary}
    if not files:
        return
    if not resume:
        cure = "add --resume to continue it, or name a new folder" if "config.yaml" in files else "name a new folder"
        raise Error(f"--out {folder}: holds files already, and a run never overwrites; {cure}")
    if not files & {"config.yaml", "checkpoints"}:
        raise Error(f"--out {folder}: holds files but no run to continue; name the folder of a run")


@contextlib.contextmanager
def run_folder(
    out: str | None, name: str, resume: bool, check: Callable[[Path, bool], None] = _check_contents
) -> Iterator[Path]:
    """Create the run's folder if it does not exist, and lock it during the block.

    Raises Error if the folder is not writable, is in use, or ``check`` refuses its contents.
    """
    folder = Path(out or "runs")
    with contextlib.ExitStack() as stack:
        try:
            folder = folder if out else new_folder(folder / name)
            folder.mkdir(parents=True, exist_ok=True)
            _check_usable(folder, resume, check)  # before the lock file is created there
            stack.enter_context(run_lock.locked(folder))
            check(folder, resume)  # another run may have started in between
            delete_temporary_files(folder)
        except OSError as error:
            raise Error(f"--out {folder}: {error.strerror}; {NOT_WRITABLE_CURE}") from error
        yield folder


def new_folder(parent: Path) -> Path:
    """Create a folder named after the time, with a number if another run has started in the same second."""
    time = datetime.now().strftime("%Y%m%d-%H%M%S")
    number = 1
    while True:
        folder = parent / (time if number == 1 else f"{time}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def check_out_folder(out: str | None, resume: bool, check: Callable[[Path, bool], None] = _check_contents) -> None:
    """Raise Error if the run's folder cannot be used, as far as known without creating anything.

    Imports no torch, so that the command line can report the mistake at once.
    """
    folder = Path(out or "runs")
    try:
        if out and folder.is_dir():
            _check_usable(folder, resume, check)
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise Error(f"--out {folder}: {error.strerror}; {NOT_WRITABLE_CURE}") from error


def _check_usable(folder: Path, resume: bool, check: Callable[[Path, bool], None]) -> None:
    """Raise Error if another run holds the folder, or else if its contents do not fit."""
    run_lock.refuse_if_held(folder)
    try:
        check(folder, resume)
    except Error:
        run_lock.refuse_if_held(folder)  # a run that has just started may have written the files
        raise


def describe_os_error(error: OSError, folder: Path) -> str:
    """The message for a file of the run that cannot be written or read."""
    reason = error.strerror or str(error)
    if error.errno in NO_SPACE:
        reason += f"; {free_space(folder)} are free there"
    return f"{reason}. The checkpoints are safe: fix the cause, then `fmaml resume {folder}`"


def free_space(folder: Path) -> str:
    """The free space on the folder's disk, such as 12.5 MB."""
    try:
        return megabytes(shutil.disk_usage(folder).free)
    except OSError:
        return "an unknown number of bytes"


def saved_device(folder: Path) -> str:
    """The device of the run, or "auto" if it was not recorded."""
    try:
        return str(json.loads(read_regular(folder / "environment.json", MAX_ENVIRONMENT_BYTES))["device"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "auto"
