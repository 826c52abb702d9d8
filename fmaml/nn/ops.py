"""Norms with correct second-order gradients under vmap, as pure functions of tensors.

Channels come first: images are [n, channels, height, width].
"""

from torch import Tensor
from torch.nn import functional as F

from .fast.batch_norm import batch_norm_of_tasks
from .fast.layout import LARGE_FEATURES, is_large, is_vmapped


def batch_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise each channel by the statistics of this batch, then scale and shift; x [n, channels, ...].

    There are no running statistics: MAML normalises the support set and the query set separately. Scale and shift are
    applied outside `F.batch_norm`, whose own weight and bias give wrong second-order gradients under vmap.
    """
    if is_vmapped(x) and is_large(x, LARGE_FEATURES) and x.dtype == scale.dtype and x.numel() > x.shape[1]:
        return batch_norm_of_tasks(x, scale, shift, eps)
    return channelwise(F.batch_norm(x, None, None, training=True, eps=eps), scale, shift)


def group_norm(x: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float = 1e-5) -> Tensor:
    """Normalise each example over groups of channels and all positions, then scale and shift; x [n, channels, ...]."""
    return channelwise(F.group_norm(x, groups, eps=eps), scale, shift)


def layer_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise each example over channels and positions, then scale and shift each channel; x [n, channels, ...]."""
    return group_norm(x, scale, shift, groups=1, eps=eps)


def channelwise(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale * x + shift with one number a channel; x [n, channels, ...]."""
    shape = (-1,) + (1,) * (x.ndim - 2)
    return x * scale.view(shape) + shift.view(shape)
