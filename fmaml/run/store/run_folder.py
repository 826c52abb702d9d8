"""A run's folder: new or empty, or that of the run to go on with; nothing in it is overwritten unasked."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from ...atomic_files import delete_temporary_files
from ...errors import UserError
from ..store import run_lock

WRITABLE = "name a folder that can be written"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def run_folder(out: str | None, name: str, resume: bool) -> Iterator[Path]:
    """The folder, made if need be, and locked while in use."""
    folder = Path(out) if out else Path("runs") / name / datetime.now().strftime("%Y%m%d-%H%M%S")
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _check_free(folder, resume)  # before the lock leaves its file there
            held.enter_context(run_lock.locked(folder))
            _check(folder, resume)  # another run may have begun in between
            delete_temporary_files(folder)
        except OSError as error:
            raise UserError(f"--out {folder}: {error.strerror}; {WRITABLE}") from error
        yield folder


def check_early(out: str | None, resume: bool) -> None:
    """What can be told of a run's folder before data are read and torch is imported. Nothing is made."""
    folder = Path(out or "runs")
    try:
        if out and folder.is_dir():
            _check_free(folder, resume)
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}; {WRITABLE}") from error


def _check_free(folder: Path, resume: bool) -> None:
    """`_check`; of a folder that another run holds, the message names that run, whatever files it has written."""
    run_lock.refuse_if_held(folder)
    try:
        _check(folder, resume)
    except UserError:
        run_lock.refuse_if_held(folder)  # it may have begun in between
        raise


def _check(folder: Path, resume: bool) -> None:
    litter = {path.name for path in folder.glob(".config.yaml.*.tmp")}  # of a run killed before it had written anything
    files = {entry.name for entry in folder.iterdir()} - {run_lock.LOCK_FILE, *litter}
    if files and not resume:
        cure = "add --resume to go on with it, or name a new folder" if "config.yaml" in files else "name a new folder"
        raise UserError(f"--out {folder}: holds files already, and a run never overwrites; {cure}")
    if files and not files & {"config.yaml", "checkpoints"}:
        raise UserError(f"--out {folder}: holds files, and none of a run to go on with; name that run's folder")


def describe_os_error(error: OSError, folder: Path) -> str:
    """One line on a file that could not be written or read."""
    said = error.strerror or str(error)
    if error.errno in NO_SPACE:
        said += f"; {free_space(folder)} are free there"
    return f"{said}. What was saved is safe: put it right, then `fmaml resume {folder}`"


def free_space(folder: Path) -> str:
    try:
        return megabytes(shutil.disk_usage(folder).free)
    except OSError:
        return "no bytes that can be counted"


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def saved_device(folder: Path) -> str:
    """What the run was on, or auto."""
    try:
        return str(json.loads((folder / "environment.json").read_text(encoding="utf-8"))["device"])
    except (OSError, ValueError, KeyError, TypeError):
        return "auto"
