"""Check the value of a user's loss, and that it changes nothing in place: torch's own errors name neither."""

import contextlib
import numbers
from collections.abc import Callable, Generator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

UNUSED = (
    "the loss does not depend on its parameters, so each gradient is 0; compute it with the `params` that it is given: "
    "fmaml.from_module(module).apply(params, batch.x), or torch.func.functional_call(module, params, (batch.x,))"
)
NUMBER = "compute it in torch, and leave out .item(), float() and .numpy()"
SEVERAL = "return the loss alone, and compute the rest in the metric of fmaml.evaluate"


def checked(loss: Callable[..., Any], has_aux: bool = False, differentiated: bool = False) -> Callable[..., Any]:
    """The loss, with a ValueError unless its value is a real scalar tensor.

    Args:
        loss: returns the value; with ``has_aux`` a pair of it and anything else.
        has_aux: see ``loss``.
        differentiated: refuse a value that does not depend on the first argument, too.
    """

    def loss_or_refusal(*args: Any) -> Any:
        result = loss(*args)
        if torch.compiler.is_compiling():
            return result
        if has_aux and not (isinstance(result, tuple) and len(cast(Any, result)) == 2):
            raise ValueError(f"an algorithm's loss returns {kind(result)}: must be (loss, metrics), as query_loss does")
        check_value(cast(Any, result)[0] if has_aux else result, differentiated)
        return cast(Any, result)

    return loss_or_refusal


def check_value(value: Any, differentiated: bool) -> None:
    """ValueError unless a loss can be minimised."""
    if not isinstance(value, Tensor):
        raise ValueError(f"the loss returns {kind(value)}: must be a scalar tensor; {cure_of(value)}")
    if value.is_complex():
        raise ValueError(f"the loss is a complex number, {value.dtype}: must be real; return its .abs() or .real")
    if not value.is_floating_point():
        raise ValueError(
            f"the loss is of {value.dtype}, without a derivative: must be floating-point; "
            f"compute it without .long(), comparisons or argmax"
        )
    if value.ndim:
        raise ValueError(f"the loss has the shape {list(value.shape)}: must be a scalar, []; return its .mean()")
    if differentiated and not value.requires_grad:
        raise ValueError(UNUSED)


def kind(value: Any) -> str:
    """Such as "None" or "a float"."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def cure_of(value: Any) -> str:
    """The cure for a loss of the wrong type."""
    if value is None:
        return "end it with `return loss`"
    return NUMBER if isinstance(value, numbers.Number | np.ndarray) else SEVERAL


@contextlib.contextmanager
def unchanged(**trees: Any) -> Generator[None]:
    """ValueError if a tensor of one of the trees was changed in place within the context."""
    before = change_counts(trees)
    yield
    if (after := change_counts(trees)) != before:
        paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(trees)[0]]
        changed = next(path for path, a, b in zip(paths, before, after, strict=True) if a != b)
        _, name, place = changed.split("'", 2)  # such as ['theta']['w']
        raise ValueError(
            f"your code changes {name}{place.removeprefix(']')} in place, also for later calls; "
            f"write it without: h = h + 1, not h += 1 or h.add_(1)"
        )


def change_counts(tree: Any) -> list[int]:
    """How often each tensor was changed in place; 0 for other leaves."""
    return [x._version if isinstance(x, Tensor) and not x.is_inference() else 0 for x in pytree.tree_leaves(tree)]
