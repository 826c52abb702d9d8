"""An outer optimizer whose state is divided over the processes (ZeRO, stage 1: Rajbhandari et al., arXiv 1910.02054).

All numbers of theta lie in one vector, and each process updates a stretch of it, for which alone it has a state. Then
the stretches are gathered. Adam's two averages of R processes so take 2 / R times theta in each of them, not 2.
"""

# the functions of torch.distributed have no types:
# pyright: reportUnknownMemberType=false

import torch
import torch.distributed as dist
from torch import Tensor

from ..distributed import count, rank
from ..tree import flat_of, is_finite, leaves, map_leaves, unflatten
from ..types import Optimizer, OptState, Theta

STRETCH = "stretch"  # the name of a process's part of theta


def sharded(optimizer: Optimizer) -> Optimizer:
    """The optimizer with its state divided over the processes; alone, a process has all of it.

    Args:
        optimizer: one that treats each number by itself, such as `fmaml.adam` and `fmaml.adamw`. What looks at all of
            the gradient comes before: ``chain(clip_by_global_norm(1.0), sharded(adam(1e-3)))``.

    Returns:
        An optimizer for gradients that are the same in all processes, as `fmaml.distributed.reduce` makes them. It
        takes the same steps, bit for bit. If a process's state overflows, theta is NaN in all, so that none goes on.

    Raises:
        ValueError: from ``init``: theta's numbers are not all of one type.

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
    """How many numbers a process has; the last one's are filled up with zeros."""
    return -(-numbers // count())


def own_stretch(flat: Tensor) -> Tensor:
    """This process's part of a vector."""
    size = stretch_length(len(flat))
    own = flat[rank() * size : (rank() + 1) * size]
    return torch.cat([own, own.new_zeros(size - len(own))])


def gathered(own: Tensor, numbers: int) -> Tensor:
    """The vector of this many numbers whose part is ``own``."""
    if count() == 1:
        return own[:numbers]
    parts = [torch.empty_like(own) for _ in range(count())]
    dist.all_gather(parts, own.contiguous())
    return torch.cat(parts)[:numbers]


def whole_state(state: OptState, theta: Theta) -> OptState:
    """The state of all processes, to be saved: the same for any number of processes."""
    numbers = len(flat_of(theta))
    size = stretch_length(numbers)
    return map_leaves(lambda leaf: gathered(leaf, numbers) if leaf.shape == (size,) else leaf, state)


def own_state(whole: OptState, theta: Theta) -> OptState:
    """This process's part of what `whole_state` returned, in however many processes."""
    numbers = len(flat_of(theta))
    return map_leaves(lambda leaf: own_stretch(leaf) if leaf.shape == (numbers,) else leaf, whole)
