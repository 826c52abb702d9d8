"""Counter-based random numbers: pure functions of a key and a counter, without generator state.

SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): output i of
the generator seeded with ``key`` is ``finalise(key + (i + 1) * GAMMA)``. An output can be the next key, so calls of
`fold` nest:

    fold(fold(fold(fold(seed, split), step), task), slot)

Keys are int64: the 64 bits of the paper, read as two's complement. Integer overflow is the same on every device, so
CPU and CUDA draw the same numbers. Control flow does not depend on data, so ``torch.compile`` can trace it.
"""

from typing import overload

from torch import Tensor


def signed(z: int) -> int:
    """The lowest 64 bits of ``z`` as two's complement, the range of an int64 tensor."""
    return (z + 2**63) % 2**64 - 2**63


_GAMMA = signed(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = signed(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = signed(0x94D049BB133111EB)


@overload
def fold(key: int, counter: int) -> int: ...
@overload
def fold(key: Tensor, counter: int | Tensor) -> Tensor: ...
@overload
def fold(key: int, counter: Tensor) -> Tensor: ...
def fold(key: int | Tensor, counter: int | Tensor) -> int | Tensor:
    """Output ``counter`` of SplitMix64 seeded with ``key``: a new key of 64 random bits.

    Two ints give an int in the range of int64. Otherwise the result is an int64 tensor, of the broadcast shape of
    ``key`` and ``counter``. Tensors must be int64.

    >>> import torch, fmaml
    >>> keys = fmaml.rng.fold(fmaml.rng.fold(0, 3), torch.arange(4))  # seed 0, step 3, one key for each of four tasks
    >>> fmaml.rng.fold(keys[:, None], torch.arange(10)).shape  # ten numbers for each task
    torch.Size([4, 10])
    """
    z = _wrap(key + _wrap((counter + 1) * _GAMMA))
    z = _wrap(_xor_shift(z, 30) * _MULTIPLIER_1)
    z = _wrap(_xor_shift(z, 27) * _MULTIPLIER_2)
    return _xor_shift(z, 31)


def _wrap(z: int | Tensor) -> int | Tensor:
    """``z`` modulo 2^64. Int64 tensors overflow by themselves; Python integers do not."""
    return z if isinstance(z, Tensor) else signed(z)


def _xor_shift(z: int | Tensor, bits: int) -> int | Tensor:
    """z ^ (z >>> bits). ``>>`` copies the sign bit; the mask makes it a logical shift."""
    return z ^ ((z >> bits) & (2 ** (64 - bits) - 1))


def uniform(keys: Tensor) -> Tensor:
    """Uniform random numbers in [0, 1), float64, one per key: its upper 53 bits times 2^-53.

    >>> import torch, fmaml
    >>> fmaml.rng.uniform(fmaml.rng.fold(0, torch.arange(3)))
    tensor([0.8833, 0.4315, 0.0264], dtype=torch.float64)
    """
    return ((keys >> 11) & (2**53 - 1)).double() * 2.0**-53
