"""Where data is looked for: the root that was asked for, or else $FMAML_DATA and the user's cache folder."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from ..errors import UserError

Found = TypeVar("Found")


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/fmaml``, or ``~/.cache/fmaml``. It need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fmaml"


def roots(root: str | None) -> list[Path]:
    """The folders to search, in order. A root that was asked for is the only one: no other data stands in for it."""
    if root is not None:
        return [Path(root).expanduser()]
    fromenv = os.environ.get("FMAML_DATA")
    return [*([Path(fromenv).expanduser()] if fromenv else []), cache_folder()]


def find(locate: Callable[[Path], Found | None], root: str | None, names: Iterable[str]) -> Found | None:
    """What ``locate`` makes of the first folder it accepts: a root itself, or a folder in it with one of the names."""
    found = (locate(place) for place in places(root, names))
    return next((item for item in found if item is not None), None)


def places(root: str | None, names: Iterable[str]) -> list[Path]:
    """Every folder that is looked at, in order."""
    names = tuple(names)
    return [place for base in roots(root) for place in (base, *(base / name for name in names))]


def missing(what: str, root: str | None, names: Iterable[str], expected: str) -> UserError:
    """The error for data that is nowhere: where it was looked for, what was expected there, three cures."""
    given = f"data.root = {root}" if root is not None else "data.root is not set"
    looked = ", ".join(str(place) for place in places(root, names))
    return UserError(
        f"{given}: no {what} found; looked in {looked} for {expected}. Put it there, or name its folder by "
        f"data.root=FOLDER or FMAML_DATA=FOLDER, or take data.name=glyphs, which needs no file"
    )
