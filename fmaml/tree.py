"""Operations on trees of tensors: dicts, lists, tuples and NamedTuples.

`torch.func.grad` and `vmap` accept the same trees.
"""

from collections.abc import Callable
from itertools import accumulate
from typing import Any, TypeVar, overload

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

T = TypeVar("T")

leaves: Callable[[Any], list[Tensor]] = pytree.tree_leaves


@overload
def map_leaves(fn: Callable[[Tensor], Tensor], tree: T, /) -> T: ...
@overload
def map_leaves(fn: Callable[[Tensor, Tensor], Tensor], tree: T, other: Any, /) -> T: ...
@overload
def map_leaves(fn: Callable[[Tensor, Tensor, Tensor], Tensor], tree: T, other: Any, third: Any, /) -> T: ...
@overload
def map_leaves(fn: Callable[..., Tensor], tree: T, /, *others: Any) -> T: ...
def map_leaves(fn: Callable[..., Tensor], tree: T, /, *others: Any) -> T:
    """Apply ``fn`` to each leaf of ``tree`` and the leaves at the same place in ``others``; a tree like the first."""
    return pytree.tree_map(fn, tree, *others)


def detach(tree: T) -> T:
    """The same values, detached from the graph."""
    return map_leaves(Tensor.detach, tree)


def zeros_like(tree: T) -> T:
    """A tree of the same shapes, all 0."""
    return map_leaves(torch.zeros_like, tree)


def add(a: T, b: T) -> T:
    """The sum, leaf by leaf."""
    return map_leaves(torch.add, a, b)


def dot(a: T, b: T) -> Tensor:
    """The inner product of two trees of the same shapes, a scalar; the order of a dict's keys does not matter."""
    return torch.stack(leaves(map_leaves(lambda x, y: (x * y).sum(), a, b))).sum()


def squared_norm(tree: Any) -> Tensor:
    """The sum of the squares of all leaves, a scalar."""
    return torch.stack([leaf.square().sum() for leaf in leaves(tree)]).sum()


def global_norm(tree: Any) -> Tensor:
    """The Euclidean norm of all leaves together, a scalar."""
    return sqrt(squared_norm(tree))


def sqrt(v: Tensor) -> Tensor:
    """The square root with derivative 0 at 0: an unused parameter must not turn the meta-gradient into NaN."""
    positive = v > 0
    return torch.where(positive, v, 1).sqrt() * positive


def flat_of(tree: Any) -> Tensor:
    """All numbers of the tree as one vector, leaf after leaf, in the widest of their types."""
    return torch.cat([leaf.flatten() for leaf in leaves(tree)])


def is_finite(tree: Any) -> Tensor:
    """Whether all numbers of the tree are finite: a boolean scalar on its device."""
    return torch.cat([leaf.detach().flatten() for leaf in leaves(tree)]).isfinite().all()


def unflatten(flat: Tensor, like: T) -> T:
    """The numbers of a vector as a tree with the shapes and types of ``like``."""
    ends = accumulate(leaf.numel() for leaf in leaves(like))

    def part(leaf: Tensor) -> Tensor:
        end = next(ends)
        return flat[end - leaf.numel() : end].view_as(leaf).to(leaf.dtype)

    return map_leaves(part, like)


def take(tree: T, index: int | slice | Tensor) -> T:
    """Index the leading axis of every leaf."""
    return map_leaves(lambda leaf: leaf[index], tree)


def stack(trees: list[T]) -> T:
    """Stack trees of the same structure along a new leading axis."""
    return _joined(torch.stack, trees)


def concat(trees: list[T]) -> T:
    """Concatenate trees of the same structure along the leading axis."""
    return _joined(torch.cat, trees)


def _joined(join: Callable[[list[Tensor]], Tensor], trees: list[T]) -> T:
    def joined(*same_place: Tensor) -> Tensor:
        return join(list(same_place))

    return map_leaves(joined, *trees)


def leading(tree: Any) -> int:
    """The length of the leading axis that all leaves share.

    Raises:
        ValueError: a leaf is not a tensor or has no axis, or the lengths differ.
    """
    found: list[Any] = pytree.tree_leaves(tree)
    if others := [leaf for leaf in found if not isinstance(leaf, Tensor)]:
        cure = "give a tensor, or dict(..) of a mapping" if others[0] is not None else "leave it out"
        kind = type(others[0]).__name__
        raise ValueError(f"stacked tasks hold tensors, in dicts, lists and tuples; this is a {kind}: {cure}")
    sizes = {leaf.shape[0] if leaf.ndim else -1 for leaf in leaves(tree)}
    if len(sizes) != 1 or -1 in sizes:
        raise ValueError(
            f"stacked tasks need one leading axis `tasks` of the same length in every tensor; these have {sizes}"
        )
    return sizes.pop()
