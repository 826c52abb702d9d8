"""`torch.func.grad`, which refuses a loss that does not depend on its parameters: torch's own returns zeros."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

UNUSED = (
    "the loss does not depend on its parameters, so each gradient is 0; compute it with the `params` that it is given: "
    "fmaml.from_module(module).apply(params, batch.x), or torch.func.functional_call(module, params, (batch.x,))"
)


def grad(loss: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
    """The gradient of a loss with respect to its first argument; ValueError if the loss does not depend on it."""
    return torch.func.grad(connected(loss), has_aux=has_aux)


def grad_and_value(loss: Callable[..., Any]) -> Callable[..., Any]:
    """The gradient and the value of a loss; ValueError if the loss does not depend on its first argument."""
    return torch.func.grad_and_value(connected(loss))


def connected(loss: Callable[..., Any]) -> Callable[..., Any]:
    """The loss, refused if its value does not depend on the first argument."""
    if torch.compiler.is_compiling():
        return loss

    def checked(*args: Any) -> Any:
        result = loss(*args)
        value: Any = cast(Any, result)[0] if isinstance(result, tuple) else result
        if isinstance(value, Tensor) and not value.requires_grad:
            raise ValueError(UNUSED)
        return cast(Any, result)

    return checked
