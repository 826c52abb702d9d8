"""Settings of torch: deterministic algorithms, and the precision of a network's arithmetic.

The precision is float32, or one of two faster approximations of it.

``tf32``: float32 products and convolutions with 10 bits of mantissa, on GPUs that have it; elsewhere no change.
``bf16``: the network under autocast to bfloat16; parameters, losses, inner and outer updates stay float32.

Where rounding moves a rectifier's input across 0, the gradient jumps, and inner steps and batch norm amplify that: the
meta-gradient of conv4 in bf16 (32 filters, initial parameters, glyphs, 5-way 1-shot, one step of 0.4) differed from
that in float32 by 72 % of its norm, at a cosine of 0.76. The accuracy did not differ measurably:
`experiments/algorithms/maml.yaml` reached 89.64 +- 0.67 % on unseen characters after one inner step in bf16, and
90.09 +- 0.64 % in float32 (one thread of an Intel Xeon). The effect of tf32 has not been measured.
"""

import os
from typing import Any, cast

import torch
from torch import Tensor

from ..setting_types import Precision
from ..types import Model, Params


def make_deterministic(device: torch.device) -> None:
    """Ask the libraries of a GPU for algorithms with the same result each time; a CPU's are so by themselves.

    An operation that has none says so by a warning. Must be called before the first product on the GPU.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS chooses by its free memory otherwise
    torch.use_deterministic_algorithms(True, warn_only=True)
    cast(Any, torch.utils.deterministic).fill_uninitialized_memory = False  # nothing reads it, and filling takes time
    torch.backends.cudnn.benchmark = False  # it chooses by times, which differ


def set_precision(precision: Precision) -> None:
    """Allow or forbid TF32 in this process; by default torch would use it for convolutions only."""
    allowed = precision == "tf32"
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def with_precision(model: Model, precision: Precision, device: torch.device) -> Model:
    """The model with its forward pass in the given precision, and its output in float32."""
    if precision != "bf16":
        return model

    def apply(params: Params, x: Tensor) -> Tensor:
        # a cached cast would be reused at a level of differentiation that it does not belong to
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            return model.apply(params, x).float()

    return model._replace(apply=apply)
