"""Apply one formula to every leaf of a tree; on a GPU all leaves are joined, so each operation is one kernel.

Leaf by leaf, an Adam step of conv4 has 258 operations. Most of them are shorter than a kernel's launch.
"""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a signature

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..tree import T, leaves, map_leaves

LEAF_BY_LEAF = "cpu"  # here joining the leaves takes as long as it saves


@overload
def elementwise(formula: Callable[[Tensor], Tensor], tree: T, /) -> T: ...
@overload
def elementwise(formula: Callable[[Tensor, Tensor], Tensor], tree: T, other: Any, /) -> T: ...
def elementwise(formula: Callable[..., Tensor], tree: T, /, *others: Any) -> T:
    """Apply an elementwise formula to leaves at the same place; the result has the bits of `map_leaves`.

    Besides leaves the formula may contain numbers and scalar tensors.

    >>> import torch
    >>> elementwise(lambda p, g: p - 0.5 * g, {"p": torch.ones(2)}, {"p": torch.ones(2)})
    {'p': tensor([0.5000, 0.5000])}
    """
    flat = leaves(tree)
    if flat[0].device.type == LEAF_BY_LEAF:
        return map_leaves(formula, tree, *others)
    structure = pytree.tree_structure(tree)
    columns = [flat, *(structure.flatten_up_to(other) for other in others)]
    if not can_join([leaf for column in columns for leaf in column]):
        return map_leaves(formula, tree, *others)
    joined = formula(*(torch.cat([leaf.reshape(-1) for leaf in column]) for column in columns))
    parts = torch.split(joined, [leaf.numel() for leaf in flat])
    return pytree.tree_unflatten([part.view(leaf.shape) for part, leaf in zip(parts, flat, strict=True)], structure)


def can_join(flat: Sequence[Tensor]) -> bool:
    """Whether the leaves fit into one vector: one device and type, and not differentiated, vmapped or compiled."""
    return (
        not torch.compiler.is_compiling()
        and len({(leaf.device, leaf.dtype) for leaf in flat}) == 1
        and not any(leaf.requires_grad or is_transformed(leaf) for leaf in flat)
    )


def is_transformed(leaf: Tensor) -> bool:
    """Whether `torch.func` transforms the leaf."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(leaf))  # pyright: ignore
