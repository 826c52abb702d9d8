"""Where data is looked for: the root asked for; or else $FMAML_DATA, then the user's cache folder."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from ...errors import UserError

Found = TypeVar("Found")

CURE = (
    "name the folder that holds it by data.root=FOLDER or FMAML_DATA=FOLDER, "
    "or take data.name=glyphs, which needs no file"
)


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/fmaml``, or ``~/.cache/fmaml``. It need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fmaml"


def places(root: str | None, names: Iterable[str]) -> list[Path]:
    """Every folder to look at, in order: each root itself, then the folders in it with one of the names.

    A root that was asked for is the only one: no other data quietly stands in for it.
    """
    given = root if root is not None else os.environ.get("FMAML_DATA")
    roots = [expanded(given)] if given else []
    if root is None:
        roots.append(cache_folder())
    return [place for base in roots for place in (base, *(base / name for name in names))]


def expanded(folder: str) -> Path:
    """The folder, with ~ and ~user replaced; UserError if there is no such user, or nothing can be called so."""
    try:
        path = Path(folder).expanduser()
        path.exists()
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(f"data.root = {folder[:60]}: not a folder's name ({error}); {CURE}") from error
    return path


def find(locate: Callable[[Path], Found | None], root: str | None, names: Iterable[str]) -> Found | None:
    """What ``locate`` makes of the first place that it accepts; None if it accepts none."""
    found = (locate(place) for place in places(root, names))
    return next((item for item in found if item is not None), None)


def missing(what: str, expected: str, root: str | None, names: Iterable[str], cure: str = CURE) -> UserError:
    """The error for data that is nowhere: where it was looked for, what was expected there, the cures."""
    variable = os.environ.get("FMAML_DATA")
    unset = "data.root is not set" + (f", FMAML_DATA is {variable}" if variable else "")
    given = unset if root is None else f"data.root = {root}"
    looked = ", ".join(str(place) for place in places(root, names))
    return UserError(f"{given}: no {what} in {looked}; expected {expected}. Put it there, or {cure}")
