"""Divide an outer optimizer's state over the processes (ZeRO, stage 1: Rajbhandari et al., arXiv 1910.02054).

All numbers of theta are one vector. Each process updates its own stretch of the vector, and has a state only for this
stretch. Then the stretches are gathered. With R processes, Adam's two averages take 2 / R times the memory of theta in
each process instead of 2.
"""

# the functions of torch.distributed have no types:
# pyright: reportUnknownMemberType=false

import torch
import torch.distributed as dist
from torch import Tensor

from ..distributed import rank, world_size
from ..tree import flat_of, is_finite, leaves, map_leaves, unflatten
from ..types import Optimizer, OptState, Theta

STRETCH = "stretch"  # the name of a process's part of theta


def sharded(optimizer: Optimizer) -> Optimizer:
    """Divide the optimizer's state over the processes; a single process has all of it.

    Args:
        optimizer: an elementwise optimizer, such as `fmaml.adam` or `fmaml.adamw`. A transform that needs the whole
            gradient comes before: ``chain(clip_by_global_norm(1.0), sharded(adam(1e-3)))``.

    Returns:
        An optimizer with the same steps, bit for bit. Gradients must be equal in all processes, as
        `fmaml.distributed.reduce` makes them. If one process's state overflows, theta becomes NaN in all, so all stop.

    Raises:
        ValueError: from ``init``: theta has numbers of more than one type.

    Source: arXiv 1910.02054, section 5.1.

    >>> import torch, fmaml
    >>> optimizer = sharded(fmaml.sgd(0.5))
    >>> theta = {"w": torch.ones(2), "b": torch.tensor(3.0)}
    >>> optimizer.step(theta, optimizer.init(theta), theta)[0]
    {'w': tensor([0.5000, 0.5000]), 'b': tensor(1.5000)}
    """

    def init(theta: Theta) -> OptState:
        if len(types := {str(leaf.dtype) for leaf in leaves(theta)}) > 1:
            raise ValueError(f"sharded: theta has numbers of {' and '.join(sorted(types))}; give all one type")
        return optimizer.init({STRETCH: own_stretch(flat_of(theta))})

    def step(grads: Theta, state: OptState, theta: Theta) -> tuple[Theta, OptState]:
        flat = flat_of(theta)
        part = {STRETCH: own_stretch(flat)}
        part, state = optimizer.step({STRETCH: own_stretch(flat_of(grads))}, state, part)
        moved = torch.where(is_finite((state, flat[:0])), part[STRETCH], torch.nan)
        return unflatten(gathered(moved, len(flat)), theta), state

    return Optimizer(init, step)


def stretch_length(numbers: int) -> int:
    """The length of each process's stretch; the last one is padded with zeros."""
    return -(-numbers // world_size())


def own_stretch(flat: Tensor) -> Tensor:
    """This process's stretch of a vector."""
    size = stretch_length(len(flat))
    own = flat[rank() * size : (rank() + 1) * size]
    return torch.cat([own, own.new_zeros(size - len(own))])


def gathered(own: Tensor, numbers: int) -> Tensor:
    """The vector of ``numbers`` numbers, gathered from the stretches ``own`` of all processes."""
    if world_size() == 1:
        return own[:numbers]
    parts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(parts, own.contiguous())
    return torch.cat(parts)[:numbers]


def whole_state(state: OptState, theta: Theta) -> OptState:
    """The state of all processes, to save: the same for any number of processes."""
    numbers = len(flat_of(theta))
    size = stretch_length(numbers)
    return map_leaves(lambda leaf: gathered(leaf, numbers) if leaf.shape == (size,) else leaf, state)


def own_state(whole: OptState, theta: Theta) -> OptState:
    """This process's part of the `whole_state` of any number of processes."""
    numbers = len(flat_of(theta))
    return map_leaves(lambda leaf: own_stretch(leaf) if leaf.shape == (numbers,) else leaf, whole)
