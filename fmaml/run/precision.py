"""How exact a network's arithmetic is: float32, or one of two faster approximations of it.

``tf32``: float32 products and convolutions with 10 bits of mantissa, on GPUs that can; elsewhere it changes nothing.
``bf16``: the network under autocast to bfloat16; parameters, losses, inner and outer updates stay float32.
Where rounding puts a rectifier on its other side, a gradient changes at once, and inner steps and batch norm enlarge
that: bf16's meta-gradient of conv4 (32 filters, first parameters, glyphs, 5-way 1-shot, one step of 0.4) was 72 % off
float32's, at a cosine of 0.76. In accuracy it cost nothing that could be told: `experiments/algorithms/maml.yaml`
reached 89.64 +- 0.67 % on unseen characters after one inner step in bf16, and 90.09 +- 0.64 % in float32 (one thread of
an Intel Xeon). What tf32 costs nobody has measured.
"""

from typing import Literal

import torch
from torch import Tensor

from ..types import Model, Params

Precision = Literal["float32", "tf32", "bf16"]


def set_precision(precision: Precision) -> None:
    """Settle whether this process may use TF32. torch's own default is to use it, for convolutions alone."""
    allowed = precision == "tf32"
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def lowered(model: Model, precision: Precision, device: torch.device) -> Model:
    """The model with its forward pass in that precision, and its output in float32."""
    if precision != "bf16":
        return model

    def apply(params: Params, x: Tensor) -> Tensor:
        # a cache of casts would hold on to what belongs to one level of differentiation
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            return model.apply(params, x).float()

    return model._replace(apply=apply)
