"""Random bits that are a function of their counters alone: no generator, no hidden state.

SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): output i of
the generator seeded with ``key`` is ``finalise(key + (i + 1) * GAMMA)``. An output serves as a key again, so
counters chain:

    fold(fold(fold(fold(seed, split), step), task), slot)

Keys are int64 (the 64 bits of the paper, read as two's complement). Integer arithmetic wraps alike on every
device, so CPU and CUDA see the same tasks; nothing depends on data, so ``torch.compile`` can trace it.
"""

from typing import overload

import torch
from torch import Tensor

SPLITS = {"train": 0, "val": 1, "test": 2}  # never renumbered: past runs would see other tasks


def _signed(z: int) -> int:
    """64 bits as two's complement, the range of an int64 tensor."""
    return (z + 2**63) % 2**64 - 2**63


_GAMMA = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


@overload
def fold(key: int, counter: int) -> int: ...
@overload
def fold(key: Tensor, counter: int | Tensor) -> Tensor: ...
@overload
def fold(key: int, counter: Tensor) -> Tensor: ...
def fold(key, counter):
    """Output ``counter`` of SplitMix64 seeded with ``key``: an int for two ints, else int64, broadcast."""
    z = _wrap(key + _wrap((counter + 1) * _GAMMA))
    z = _wrap(_xor_shift(z, 30) * _FIRST)
    z = _wrap(_xor_shift(z, 27) * _SECOND)
    return _xor_shift(z, 31)


def _wrap(z):
    """Python integers grow; tensors have wrapped already."""
    return z if isinstance(z, Tensor) else _signed(z)


def _xor_shift(z, bits: int):
    """z ^ (z >>> bits). ``>>`` drags the sign along; the mask makes it the logical shift."""
    return z ^ ((z >> bits) & (2 ** (64 - bits) - 1))


def task_keys(seed: int, split: str, step: int | Tensor, tasks: range, device: torch.device) -> Tensor:
    """One key a task, int64 [tasks]: a function of (seed, split, step, task number) alone."""
    counters = torch.arange(tasks.start, tasks.stop, tasks.step, device=device)
    return fold(fold(fold(_signed(seed), SPLITS[split]), step), counters)


def uniform(keys: Tensor) -> Tensor:
    """Keys to float64 in [0, 1): their upper 53 bits."""
    return ((keys >> 11) & (2**53 - 1)).double() * 2.0**-53
