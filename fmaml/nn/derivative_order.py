"""How often a value is being differentiated: torch's own norms are right up to the second derivative alone.

In torch 2.13 `F.batch_norm`, `F.layer_norm` and `F.instance_norm` have a wrong third derivative, and in forward mode a
wrong second one (pytorch issues 186256, 175754, 196699). A meta-gradient takes two, for which their fast kernels serve;
what takes more, such as a Hessian of the meta-loss or a hyper-gradient through meta-steps, needs plain operations.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import debug_unwrap

MAX_ORDER_OF_KERNELS = 2


def kernels_are_exact(x: Tensor) -> bool:
    """Whether torch's own norms of x have the right derivatives of every order that is taken of x here.

    Each transform of `torch.func` that differentiates wraps x once more. Outside of all transforms ``backward()`` may
    be called any number of times, so a tensor that requires a gradient there gets False. So do forward mode, and a
    compiler, which cannot see the wrappers.
    """
    if torch.compiler.is_compiling() or in_forward_mode():
        return False
    order = 0
    while (inside := debug_unwrap(x, recurse=False)) is not x:
        order += x.requires_grad
        x = inside
    return order <= MAX_ORDER_OF_KERNELS and not x.requires_grad


def in_forward_mode() -> bool:
    """Whether `torch.func.jvp` or a dual level is active."""
    level: int = cast(Any, forward_ad)._current_level  # -1 outside of any
    return level >= 0
