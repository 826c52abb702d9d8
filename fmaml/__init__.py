"""Functional MAML on torch.func: one vectorised call for a whole meta-batch of tasks.

The public API is the list of imports in ``__init__.pyi``. Each name is imported on first use, because importing torch
takes a second and the command line often needs none of it.
"""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"


def imported_when_used(package: str, file: str) -> tuple[Callable[[str], Any], list[str]]:
    """The ``__getattr__`` and the ``__all__`` of a package, from the imports in the stub beside its ``__init__.py``.

    ``from . import rng`` imports a module. Modules are not in ``__all__``.
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    lines = [node for node in stub.body if isinstance(node, ast.ImportFrom) and node.level]
    homes = {alias.name: line.module for line in lines for alias in line.names}

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f".{homes[name] or name}", package)
        return getattr(module, name) if homes[name] else module

    return find, sorted(name for name, home in homes.items() if home)


_find, __all__ = imported_when_used(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    value = globals()[name] = _find(name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
