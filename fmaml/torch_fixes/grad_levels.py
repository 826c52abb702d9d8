"""The order of differentiation of a value, and checks of code that is correct only up to some order.

In torch 2.13 `F.batch_norm`, `F.layer_norm` and `F.instance_norm` have a wrong third derivative, and in forward mode a
wrong second one (pytorch issues 186256, 175754, 196699). A meta-gradient takes two derivatives, so their fast kernels
serve. A Hessian of the meta-loss, or a hyper-gradient through meta-steps, takes more and needs plain operations.

A surrogate loss has only one correct derivative: its gradient with respect to theta. It must not be differentiated
again, or with respect to anything else.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, cast

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import forward_ad
from torch.func import debug_unwrap

from ..tree import T, detach, dot, leaves, map_leaves
from .loss_value import checked

MAX_ORDER_OF_KERNELS = 2


def kernels_are_exact(x: Tensor) -> bool:
    """Whether torch's own norms are correct for all derivatives that are being taken of x.

    Outside all transforms ``backward()`` may be called any number of times, so a tensor that requires a gradient there
    gives False. Forward mode gives False, too, and so does a compiler, because it cannot see the transforms.
    """
    if torch.compiler.is_compiling() or in_forward_mode():
        return False
    *transforms, outside = _levels(x)
    return sum(transforms) <= MAX_ORDER_OF_KERNELS and not outside


def outside_transforms() -> contextlib.AbstractContextManager[Any]:
    """A context outside all transforms of `torch.func`; plain tensors stay plain in it."""
    return contextlib.nullcontext() if torch.compiler.is_compiling() else temporarily_clear_interpreter_stack()


def is_under_vmap() -> bool:
    """Whether a vmap is active."""
    functorch: Any = cast(Any, torch)._C._functorch
    return any(level.key().name == "Vmap" for level in functorch.get_interpreter_stack() or ())


def in_forward_mode() -> bool:
    """Whether `torch.func.jvp` or a dual level is active."""
    level: int = cast(Any, forward_ad)._current_level  # -1 outside all levels
    return level >= 0


def detach_theta(theta: T, name: str) -> T:
    """theta as a constant, for a surrogate loss; ValueError if it is differentiated more than once."""
    if not torch.compiler.is_compiling() and (in_forward_mode() or any(sum(_levels(p)) > 1 for p in leaves(theta))):
        refuse_derivative(name, "is differentiated a second time")
    return detach(theta)


def order(x: Tensor) -> int:
    """The number of derivatives that are being taken with respect to x."""
    return sum(_levels(x))


def is_differentiated(tree: Any) -> bool:
    """Whether a leaf of the tree is differentiated, by `torch.func.grad` or by ``backward()`` from outside."""
    return any(any(_levels(leaf)) for leaf in leaves(tree))


def detach_result(tree: T, name: str) -> T:
    """Detach a result of constants; ValueError if it depends on a tensor that is being differentiated."""
    if not torch.compiler.is_compiling() and is_differentiated(tree):
        refuse_derivative(name, "is differentiated with respect to something other than theta, such as an inner rate")
    return detach(tree)


def with_gradient(value: Tensor, gradient: T, theta: T) -> Tensor:
    """A scalar with this value that is linear in theta: its gradient is the constant ``gradient``."""
    moved = map_leaves(torch.sub, theta, detach(theta))
    return value.detach() + dot(detach(gradient), moved)


def refuse_derivative(name: str, what: str) -> NoReturn:
    raise ValueError(
        f"{name}: its loss, a surrogate, {what}; "
        f"use an algorithm that differentiates through its inner steps, such as maml with remat=False"
    )


def _levels(x: Tensor) -> Iterator[bool]:
    """Whether x is differentiated at each level: by the transforms of `torch.func` from the innermost, then outside."""
    while (inside := debug_unwrap(x, recurse=False)) is not x:
        yield x.requires_grad
        x = inside
    yield x.requires_grad


def grad(loss: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
    """The gradient of a loss with respect to its first argument; ValueError for a value that has none."""
    return torch.func.grad(checked(loss, has_aux, differentiated=True), has_aux=has_aux)


def grad_and_value(loss: Callable[..., Any]) -> Callable[..., Any]:
    """The gradient and the value of a loss; errors as `grad`."""
    return torch.func.grad_and_value(checked(loss, differentiated=True))
