"""The few operations on trees (dicts, lists, tuples, NamedTuples of tensors) that the rest needs.

They follow `torch.func`'s own idea of a tree, so that whatever passes here passes through `grad` and `vmap` as well.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

leaves = pytree.tree_leaves


def map_leaves(fn: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """``fn`` on each leaf of ``tree``, with the leaves at the same place in ``others``."""
    return pytree.tree_map(fn, tree, *others)


def detach(tree: Any) -> Any:
    """The same values, cut off from differentiation."""
    return map_leaves(torch.Tensor.detach, tree)


def zeros_like(tree: Any) -> Any:
    return map_leaves(torch.zeros_like, tree)


def add(a: Any, b: Any) -> Any:
    return map_leaves(torch.add, a, b)


def global_norm(tree: Any) -> Tensor:
    """The Euclidean norm of all leaves taken together, a scalar."""
    return sqrt(torch.stack([leaf.square().sum() for leaf in leaves(tree)]).sum())


def sqrt(v: Tensor) -> Tensor:
    """The square root with derivative 0 at 0: an unused parameter must not turn the meta-gradient into NaN."""
    positive = v > 0
    return torch.where(positive, v, 1).sqrt() * positive


def take(tree: Any, index: int | slice) -> Any:
    """One entry, or a slice, along the leading axis of every leaf."""
    return map_leaves(lambda leaf: leaf[index], tree)


def stack(trees: list[Any]) -> Any:
    """A list of equal trees as one tree with a new leading axis."""
    return map_leaves(lambda *leaf: torch.stack(leaf), *trees)


def concat(trees: list[Any]) -> Any:
    """A list of equal trees joined along the leading axis."""
    return map_leaves(lambda *leaf: torch.cat(leaf), *trees)


def leading(tree: Any) -> int:
    """The length of the leading axis, which every leaf shares."""
    sizes = {leaf.shape[0] if leaf.ndim else -1 for leaf in leaves(tree)}
    if len(sizes) != 1 or -1 in sizes:
        raise ValueError(
            f"stacked tasks need one leading axis `tasks` of the same length in every tensor; these have {sizes}"
        )
    return sizes.pop()
