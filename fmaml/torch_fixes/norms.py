"""Norms with correct derivatives of every order, in reverse and in forward mode, as pure functions of tensors.

Channels come first: images are [n, channels, height, width]. Scale and shift are applied outside torch's own kernels,
because their weight and bias give wrong second-order gradients under vmap.
"""

from torch import Tensor
from torch.nn import functional as F

from .batch_norm import batch_norm_of_tasks
from .grad_levels import in_forward_mode, kernels_are_exact
from .layout import LARGE_FEATURES, is_large, is_vmapped
from .support_statistics import Statistics, supplied_statistics


def batch_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise each channel by the statistics of this batch, then scale and shift; x [n, channels, ...].

    There are no running statistics: MAML normalises the support set and the query set separately. A deployed network
    uses the statistics of its support set, see `fmaml.torch_fixes.support_statistics`.
    """
    if (given := supplied_statistics(x)) is not None:
        return by_statistics(x, given, scale, shift, eps)
    large = is_vmapped(x) and is_large(x, LARGE_FEATURES) and x.dtype == scale.dtype and x.numel() > x.shape[1]
    if large and x.shape[1:2] == scale.shape == shift.shape and not in_forward_mode():
        return batch_norm_of_tasks(x, scale, shift, eps)
    return channelwise(standardise_batch(x, eps), scale, shift)


def by_statistics(x: Tensor, given: Statistics, scale: Tensor, shift: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise each channel by given statistics, then scale and shift; x [n, channels, ...]."""
    scale = scale * (given.variance + eps).rsqrt()
    return channelwise(x, scale, shift - scale * given.mean)


def group_norm(x: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float = 1e-5) -> Tensor:
    """Normalise each example over groups of channels and all positions, then scale and shift; x [n, channels, ...]."""
    return channelwise(F.group_norm(x, groups, eps=eps), scale, shift)


def layer_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise each example over channels and positions, then scale and shift each channel; x [n, channels, ...]."""
    return group_norm(x, scale, shift, groups=1, eps=eps)


def standardise_batch(x: Tensor, eps: float) -> Tensor:
    """Standardise each channel over the batch and all positions; x [n, channels, ...]."""
    if kernels_are_exact(x):
        return F.batch_norm(x, None, None, training=True, eps=eps)
    if x.numel() <= x.shape[1]:
        raise ValueError(f"batch norm: expected more than 1 value per channel, got {list(x.shape)}; give more examples")
    return standardise(x, (0, *range(2, x.ndim)), eps)


def standardise_instances(x: Tensor, eps: float) -> Tensor:
    """Standardise each channel of each example over all positions; x [n, channels, ...]."""
    if kernels_are_exact(x):
        return F.instance_norm(x, eps=eps)
    return standardise(x, tuple(range(2, x.ndim)), eps)


def standardise_last(x: Tensor, shape: tuple[int, ...], eps: float = 1e-5) -> Tensor:
    """Standardise x [..., *shape] over the axes of ``shape``."""
    if kernels_are_exact(x):
        return F.layer_norm(x, shape, eps=eps)
    return standardise(x, tuple(range(-len(shape), 0)), eps)


def standardise(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    """Standardise over some axes in plain operations: (x - mean) / sqrt(variance + eps)."""
    centred = x - x.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()


def channelwise(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale * x + shift by channel; x [n, channels, ...]."""
    shape = (-1,) + (1,) * (x.ndim - 2)
    return x * scale.view(shape) + shift.view(shape)
