"""Import torch's compiler when it compiles, not when a gradient is taken.

`torch.func.grad` and `vjp` switch off compiled autograd by ``torch._dynamo.compiled_autograd._disable()``. So the first
gradient of a process imports the compiler and sympy: 820 modules, 1.2 s. Compiled autograd can be on only after the
compiler was imported. Until then there is nothing to switch off.
"""

import sys
from contextlib import nullcontext
from importlib import import_module
from typing import Any, cast

import torch


class Deferred:
    """Stand for a module, which is imported when an attribute is used that is not among the ``known`` ones."""

    def __init__(self, module: str, **known: Any) -> None:
        vars(self).update(known, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._module), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(import_module(self._module), name, value)


def defer_compiler() -> None:
    """Let ``torch._dynamo`` stand for the compiler until it is imported, which replaces the attribute."""
    if "torch._dynamo" not in sys.modules:
        off = Deferred("torch._dynamo.compiled_autograd", _disable=nullcontext)
        cast(Any, torch)._dynamo = Deferred("torch._dynamo", compiled_autograd=off)
