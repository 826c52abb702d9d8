"""Norm, ReLU and max-pooling in a row of an `nn.Sequential`, as the one operator of `fmaml.torch_fixes.block`.

Each call decides anew. The layers run one by one where the operator would save no time. They also do if a hook, or a
mode of torch, watches them. Layers outside an `nn.Sequential`, such as those of a module's own ``forward``, always do.
"""

# a layer's hooks have no public name: pyright: reportPrivateUsage=false

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from torch import Tensor, nn
from torch.nn.modules import module as every
from torch.overrides import handle_torch_function
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..torch_fixes.block import is_fast, norm_relu_pool


class Sequential(nn.Sequential):
    """An `nn.Sequential` with the same name, which fuses its layers where that saves time."""

    def forward(self, input: Any) -> Any:
        layers = list(self)
        while layers:
            count, input = fused(layers, input)
            if count == 0:
                count, input = 1, layers[0](input)
            layers = layers[count:]
        return input


def fuse_layers(module: nn.Module) -> None:
    """Let each `nn.Sequential` of the module fuse its layers, in place."""
    for layer in module.modules():
        if type(layer) is nn.Sequential and is_plain(layer):
            layer.__class__ = Sequential


class Pattern(NamedTuple):
    """The options of the layers that follow a norm, and their number."""

    length: int
    slope: float
    window: int


def fused(layers: list[nn.Module], x: Any) -> tuple[int, Any]:
    """The number of layers that one operator replaces, from the first layer on, and its result for x; 0: none."""
    norm = cast(Any, layers[0])
    if not (type(norm) is nn.BatchNorm2d and is_plain(norm) and isinstance(x, Tensor)):
        return 0, x
    if _get_current_dispatch_mode() is not None:
        return 0, x
    by_batch = norm.running_mean is None and norm.running_var is None
    pattern = pattern_of(layers[1:])
    if not (by_batch and norm.affine and is_fast(x, norm.weight, norm.bias, pattern.window)):
        return 0, x
    options = pattern.window, norm.eps, pattern.slope
    # as one function of torch: its own calls are not replaced one by one
    y = handle_torch_function(norm_relu_pool, (x,), x, norm.weight, norm.bias, *options)
    return 1 + pattern.length, y


def pattern_of(layers: list[nn.Module]) -> Pattern:
    """The ReLU and the max-pooling that the layers begin with."""
    following = iter(layers[:2])
    count, slope, window = 0, 1.0, 1
    layer = next_plain(following)
    if (found := slope_of(layer)) is not None:
        count, slope, layer = 1, found, next_plain(following)
    if (size := window_of(layer)) is not None:
        count, window = count + 1, size
    return Pattern(count, slope, window)


def next_plain(layers: Iterator[nn.Module]) -> nn.Module | None:
    layer = next(layers, None)
    return layer if layer is not None and is_plain(layer) else None


def slope_of(layer: nn.Module | None) -> float | None:
    """The slope of a ReLU or a leaky ReLU for negative numbers; None for other layers."""
    if type(layer) is nn.ReLU:
        return 0.0
    return layer.negative_slope if type(layer) is nn.LeakyReLU and 0 <= layer.negative_slope <= 1 else None


def window_of(layer: nn.Module | None) -> int | None:
    """The window of a max-pooling of squares side by side; None for other layers."""
    if type(layer) is not nn.MaxPool2d or layer.return_indices or layer.ceil_mode:
        return None
    size, stride, padding, dilation = map(pair, (layer.kernel_size, layer.stride, layer.padding, layer.dilation))
    return size[0] if size == stride == size[::-1] and (padding, dilation) == ((0, 0), (1, 1)) else None


def pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def is_plain(layer: nn.Module) -> bool:
    """Whether a call of the layer is its class's ``forward`` alone, without a hook."""
    own = layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer)
    return not (own or every._global_forward_hooks or every._global_forward_pre_hooks)
