"""The context of a user's own losses, metrics and networks: torch's wrong functions are replaced, its errors explained.

fmaml's own networks and losses need neither. So the context replaces functions only if an algorithm leads to code of
somebody else; each call of a torch function then costs some microseconds.
"""

import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, cast

import torch
from torch import Tensor

from .explain import with_cures
from .grad_levels import in_forward_mode, is_differentiated
from .layout import is_vmapped
from .loss_value import unchanged


def in_own_code(
    functions: Iterable[Callable[..., Any]], theta: Any, tasks: Any, vmapped: bool, metric: bool = False
) -> contextlib.AbstractContextManager[Any]:
    """A context for calls of these functions.

    Args:
        functions: such as an algorithm's ``loss``.
        theta: if it is already being differentiated, norms are replaced as well, also those of fmaml's own code. A
            meta-gradient is correct without that; a further derivative of it is not.
        tasks: the tasks; a change of them or of theta in place is refused.
        vmapped: whether the tasks are vmapped.
        metric: whether a metric is computed, without derivatives.
    """
    if torch.compiler.is_compiling():
        return contextlib.nullcontext()
    context = contextlib.ExitStack()
    context.enter_context(with_cures("your code", lambda: vmapped, metric))
    context.enter_context(unchanged(theta=theta, tasks=tasks))
    differentiated = in_forward_mode() or is_differentiated(theta)
    if differentiated or any(map(is_foreign, functions)):
        from .functions import OWN_CODE, WITH_WRONG_DERIVATIVES, ExactFunctions  # here, since fmaml's own need it not

        further = WITH_WRONG_DERIVATIVES if differentiated else {}
        context.enter_context(ExactFunctions(OWN_CODE | further | {cast(Any, Tensor).tolist: tolist}))
    return context


def tolist(tensor: Tensor) -> Any:
    """`Tensor.tolist`; under vmap an error that `explain` knows, since torch's is that of NumPy."""
    if is_vmapped(tensor):
        raise RuntimeError("vmap cannot read the numbers of a task")
    return cast(Any, tensor).tolist()


def is_foreign(function: Any, seen: frozenset[int] = frozenset()) -> bool:
    """Whether a function is defined outside fmaml, or uses such a function by a variable or an argument."""
    if id(function) in seen or isinstance(function, type | BuiltinFunctionType) or not callable(function):
        return False  # a built-in function, such as torch.relu, calls no Python
    seen = seen | {id(function)}
    if isinstance(function, partial):
        given = cast(Any, function)
        return any(is_foreign(part, seen) for part in (given.func, *given.args, *given.keywords.values()))
    if isinstance(function, MethodType):
        return is_foreign(function.__func__, seen)
    if not isinstance(function, FunctionType):
        return not type(function).__module__.startswith("fmaml.")
    if not function.__module__.startswith("fmaml."):
        return True
    return any(is_foreign(cell.cell_contents, seen) for cell in function.__closure__ or () if filled(cell))


def filled(cell: Any) -> bool:
    """Whether a variable of a function has a value yet."""
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
