"""A small causal transformer over symbols, as (init, apply).

Attention is written out as softmax(Q K' / sqrt(d)) V (Vaswani et al., arXiv 1706.03762, equation 1). MAML needs second
derivatives, and the fused kernels of `F.scaled_dot_product_attention` have none.
"""

import math

import torch
from einops import rearrange
from torch import Generator, Tensor
from torch.nn import functional as F

from ..setting_types import Depth, Size
from ..torch_fixes.norms import standardise_last
from ..types import Model, Params
from .layers import linear_init, named_model, norm_init


def transformer(
    *,
    inputs: tuple[int, ...],
    outputs: int,
    width: Size = 64,
    heads: Size = 4,
    layers: Depth = 2,
    expand: Size = 4,
    tied: bool = False,
) -> Model:
    """A causal transformer: symbols int64 [n, length] -> logits [n, length, outputs].

    Args:
        inputs: (length of the longest passage,).
        outputs: the number of symbols, which are both inputs and targets.
        width: the size of a symbol's representation; a multiple of ``heads``.
        heads: attention heads.
        layers: the number of blocks, each with attention and a hidden layer.
        expand: the hidden layers have ``expand * width`` units.
        tied: use the symbols' embeddings as the head's weight.

    Returns:
        A model with parameters symbols.weight, positions.weight, block1.norm1.weight, .., head.weight, head.bias.

    Raises:
        ValueError: ``inputs`` has more than one axis, or ``width`` is not a multiple of ``heads``; from ``apply``: a
            passage is longer than ``inputs``.

    Source: arXiv 1706.03762; norms before each layer as in arXiv 2002.04745.

    >>> import torch, fmaml
    >>> model = fmaml.transformer(inputs=(64,), outputs=256, width=16)
    >>> model.apply(model.init(torch.Generator()), torch.zeros(4, 10, dtype=torch.int64)).shape
    torch.Size([4, 10, 256])
    """
    if len(inputs) != 1:
        raise ValueError(
            f"transformer: inputs = {inputs}: needs passages of symbols, (length,); use conv4 for images, or mlp"
        )
    if width % heads:
        raise ValueError(f"transformer: width = {width} must be a multiple of heads = {heads}")
    (context,) = inputs

    def init(generator: Generator) -> Params:
        params = {
            "symbols.weight": _normal((outputs, width), generator),
            "positions.weight": _normal((context, width), generator),
        }
        for i in range(1, layers + 1):
            params |= norm_init(f"block{i}.norm1", width) | norm_init(f"block{i}.norm2", width)
            params |= linear_init(f"block{i}.qkv", width, 3 * width, generator)
            params |= linear_init(f"block{i}.mix", width, width, generator)
            params |= linear_init(f"block{i}.up", width, expand * width, generator)
            params |= linear_init(f"block{i}.down", expand * width, width, generator)
        params |= norm_init("norm", width)
        return params if tied else params | linear_init("head", width, outputs, generator)

    def apply(params: Params, x: Tensor) -> Tensor:
        length = x.shape[-1]
        if length > context:
            raise ValueError(f"transformer: a passage has {length} symbols; give {context} at most, as in inputs")
        symbols = params["symbols.weight"]
        h = F.embedding(x, symbols) + params["positions.weight"][:length]  # [n, length, width]
        for i in range(1, layers + 1):
            h = h + attention(params, f"block{i}", normalised(params, f"block{i}.norm1", h), heads)
            hidden = F.gelu(linear(params, f"block{i}.up", normalised(params, f"block{i}.norm2", h)))
            h = h + linear(params, f"block{i}.down", hidden)  # [n, length, expand * width] -> [n, length, width]
        h = normalised(params, "norm", h)
        return F.linear(h, symbols) if tied else linear(params, "head", h)  # [n, length, outputs]

    return named_model(init, apply)


def attention(params: Params, block: str, h: Tensor, heads: int) -> Tensor:
    """Causal self-attention: each position attends to itself and earlier ones; [n, length, width] -> the same shape."""
    qkv = linear(params, f"{block}.qkv", h)  # [n, length, 3 * width]
    q, k, v = rearrange(qkv, "n l (three heads d) -> three n heads l d", three=3, heads=heads)
    scores = q @ k.mT / math.sqrt(q.shape[-1])  # [n, heads, length, length]
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=h.device).triu(1)
    mixed = scores.masked_fill(later, -math.inf).softmax(-1) @ v  # [n, heads, length, d]
    return linear(params, f"{block}.mix", rearrange(mixed, "n heads l d -> n l (heads d)"))


def normalised(params: Params, name: str, h: Tensor) -> Tensor:
    """Normalise each position over the width, then scale and shift; h [n, length, width]."""
    return standardise_last(h, h.shape[-1:]) * params[f"{name}.weight"] + params[f"{name}.bias"]


def linear(params: Params, name: str, h: Tensor) -> Tensor:
    """Apply the linear layer ``name`` to the last axis of h."""
    return F.linear(h, params[f"{name}.weight"], params[f"{name}.bias"])


def _normal(shape: tuple[int, int], generator: Generator) -> Tensor:
    """Initial embeddings with a standard deviation of 0.2, ten times that of GPT-2.

    The first norm divides the embeddings by it, and so also their inner gradients.
    """
    if torch.get_default_device().type == "meta":  # see `fmaml.nn.layers.xavier`
        return torch.empty(shape)
    return 0.2 * torch.randn(shape, generator=generator)
