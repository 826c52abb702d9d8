"""The same formula for every leaf of a tree; on a GPU each of its operations is one kernel for all leaves.

An Adam step of conv4 is 258 operations leaf by leaf, most of them shorter than a kernel's launch, and 22 together.
torch has no public name for an operation on a list of tensors; ``torch._foreach_..`` is what its own optimizers call.
"""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false, reportAttributeAccessIssue=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a signature

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..tree import T, leaves, map_leaves, sqrt

ONE_BY_ONE = "cpu"  # a launch there is a call, and together took as long or longer


@overload
def elementwise(formula: Callable[[Tensor], Tensor], tree: T, /) -> T: ...
@overload
def elementwise(formula: Callable[[Tensor, Tensor], Tensor], tree: T, other: Any, /) -> T: ...
def elementwise(formula: Callable[..., Any], tree: T, /, *others: Any) -> T:
    """The tree of ``formula(leaf, ..)`` of the leaves at the same place; as `map_leaves`, of which it has the bits.

    The formula is made of +, -, *, / and `square_root`; beside leaves it has numbers and scalar tensors.

    >>> import torch
    >>> elementwise(lambda p, g: p - 0.5 * g, {"p": torch.ones(2)}, {"p": torch.ones(2)})
    {'p': tensor([0.5000, 0.5000])}
    """
    flat = leaves(tree)
    if flat[0].device.type == ONE_BY_ONE:
        return map_leaves(formula, tree, *others)
    structure = pytree.tree_structure(tree)
    columns = [flat, *(structure.flatten_up_to(other) for other in others)]
    if not go_together([leaf for column in columns for leaf in column]):
        return map_leaves(formula, tree, *others)
    return pytree.tree_unflatten(formula(*map(Together, columns)).leaves, structure)


def go_together(flat: Sequence[Tensor]) -> bool:
    """Whether one kernel can take all: of one type, and not to be differentiated, vmapped or compiled."""
    return (
        not torch.compiler.is_compiling()
        and len({(leaf.device, leaf.dtype) for leaf in flat}) == 1
        and not any(leaf.requires_grad or is_transformed(leaf) for leaf in flat)
    )


def is_transformed(leaf: Tensor) -> bool:
    """Whether `torch.func` is at work on it."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(leaf))


def square_root(x: Tensor) -> Tensor:
    """The square root within a formula, of a leaf with derivative 0 at 0."""
    return x.sqrt() if isinstance(x, Together) else sqrt(x)


class Together:
    """Leaves of one type, with the operations that act on all at once."""

    def __init__(self, leaves: Sequence[Tensor]) -> None:
        self.leaves = list(leaves)
        self.dtype = self.leaves[0].dtype

    def to(self, dtype: torch.dtype) -> Together:
        """The same leaves: a number or a scalar tensor does not change their type."""
        assert dtype == self.dtype
        return self

    def sqrt(self) -> Together:
        """The square roots."""
        return Together(torch._foreach_sqrt(self.leaves))

    def _with(self, operation: Callable[..., Any], other: Any) -> Together:
        if isinstance(other, Together):
            other = other.leaves
        elif isinstance(other, Tensor):
            other = other.to(self.dtype)
        return Together(operation(self.leaves, other))

    def __add__(self, other: Any) -> Together:
        return self._with(torch._foreach_add, other)

    def __sub__(self, other: Any) -> Together:
        return self._with(torch._foreach_sub, other)

    def __mul__(self, other: Any) -> Together:
        return self._with(torch._foreach_mul, other)

    def __truediv__(self, other: Any) -> Together:
        return self._with(torch._foreach_div, other)

    __radd__ = __add__
    __rmul__ = __mul__
