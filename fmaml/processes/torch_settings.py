"""Settings of torch: deterministic algorithms, and the precision of a network's arithmetic.

The precision is float32, or one of two faster approximations of it.

- ``tf32``: float32 products and convolutions with 10 bits of mantissa, on GPUs that have it; elsewhere no change.
- ``bf16``: the network under autocast to bfloat16; parameters, losses, inner steps and updates stay float32.

If rounding moves a ReLU's input across 0, the gradient jumps. In an inner step the jump moves the parameters, and so
more inputs across 0. So inner steps are computed in float32, forward and backward; queries and pre-training are not.
For conv4 the meta-gradient then differs from that in float64 by 3 to 12 % of the norm. With rounded inner steps it was
7 to 68 %. `docs/decisions.md` has the table. tf32: not measured yet.
"""

import os
from typing import Any, cast

import torch
from torch import Tensor

from ..inner import in_inner_step
from ..setting_types import Precision
from ..types import Model, Params


def make_deterministic(device: torch.device) -> None:
    """Use deterministic algorithms on a GPU; on a CPU they are deterministic anyway.

    An operation without a deterministic algorithm warns. Call this before the first product on the GPU.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # otherwise cuBLAS chooses by its free memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    cast(Any, torch.utils.deterministic).fill_uninitialized_memory = False  # nothing reads it, and filling takes time
    torch.backends.cudnn.benchmark = False  # it would choose algorithms by their times, which vary


def set_precision(precision: Precision) -> None:
    """Allow or forbid TF32 in this process; torch's default allows it for convolutions only."""
    allowed = precision == "tf32"
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def slow_precision(precision: Precision, device: torch.device) -> str:
    """A line for the user if the precision takes more time than float32 on this processor; else empty."""
    fast = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # "bf16": ARM
    if precision != "bf16" or device.type != "cpu" or fast:
        return ""
    return "train.precision = bf16: this processor has no instructions for it, so float32 is faster"


def with_precision(model: Model, precision: Precision, device: torch.device) -> Model:
    """The model with its forward pass in the given precision, and its output in float32; see this file's head."""
    if precision != "bf16":
        return model

    def apply(params: Params, x: Tensor) -> Tensor:
        # without the cache: a cached cast would be reused at another level of differentiation
        with torch.autocast(device.type, torch.bfloat16, enabled=not in_inner_step(), cache_enabled=False):
            return model.apply(params, x).float()

    return model._replace(apply=apply)
