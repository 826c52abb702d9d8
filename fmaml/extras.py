"""Code that does not come with fmaml: what an optional feature needs, and functions that a setting names."""

import sys
import traceback
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import Error


def require(feature: str, extra: str, *modules: str) -> None:
    """Error with the command that installs them, unless all ``modules`` of the extra are installed."""
    missing = [module for module in modules if not is_installed(module)]
    if missing:
        raise Error(f"{feature}: needs {', '.join(missing)}; pip install 'fmaml[{extra}]' installs it")


def is_installed(module: str) -> bool:
    """Whether it can be imported; a folder of that name, such as ``wandb`` with W&B's own files, is no module."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


def imported(target: str) -> Any:
    """What ``package.module:name`` is, imported from the current folder or from what is installed.

    ImportError, in one line, if there is none or importing it fails.
    """
    module, _, name = target.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # so that code in the current folder is found, as by `python -m`
    try:
        return getattr(import_module(module), name)
    except (Exception, SystemExit) as error:  # a module may raise whatever it likes
        raise ImportError(describe_error(error)) from error


def describe_error(error: BaseException) -> str:
    """An error of code outside fmaml in one line: its type, its message, and the line of that code that raised it."""
    ours = (str(Path(__file__).parent), "<frozen importlib", import_module.__code__.co_filename)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    place = f" ({frames[0].filename}, line {frames[0].lineno})" if frames else ""
    message = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {message}{place}"
