"""How the images of many tasks lie in memory while they are vmapped on a CPU: tasks as channels, and channels last.

On [n, height, width, tasks * channels] batch norm takes a third of its time in torch's usual order there, the gradients
of strided convolutions half to three quarters, and a meta-step of conv4 0.8 (benchmarks/conv_lowering.py has the last).
A compiler lays out by itself; a GPU has not been measured.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.func import debug_unwrap

LARGE_IMAGES, LARGE = 2**17, 2**20  # numbers in the images and in the features of all tasks, from where it pays


def pays(x: Tensor, least: int) -> bool:
    """Whether to care for the layout of x: on a CPU, uncompiled, and large, as the operators' own calls take time."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and debug_unwrap(x).numel() > least


def vmapped(x: Tensor) -> bool:
    """Whether x is one of many tasks', all of which are done at once. A compiler does not ask."""
    return not torch.compiler.is_compiling() and debug_unwrap(x).ndim > x.ndim


def channels_last(images: Tensor) -> Tensor:
    """The same images, [n, channels, height, width], laid out as said above if that pays."""
    return Laid.apply(images) if pays(images, LARGE_IMAGES) else images  # type: ignore[return-value]


class Laid(Function):
    """The identity. What is computed from its result is laid out like it, and so are the gradients."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None: ...

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]

    @staticmethod
    def vmap(info: Any, dims: tuple, x: Tensor) -> tuple[Tensor, int]:
        laid: Any = Laid.apply(channels_of_all(info.batch_size, dims[0], x))
        return laid.unflatten(1, (info.batch_size, -1)), 1


def channels_of_all(tasks: int, dim: int | None, x: Tensor) -> Tensor:
    """[n, channels, ...] of each task, stacked at ``dim`` (None: the same for all), as [n, tasks * channels, ...]."""
    x = x.unsqueeze(1).expand(-1, tasks, *[-1] * (x.ndim - 1)) if dim is None else x.movedim(dim, 1)
    return x.flatten(1, 2)


def vectors_of_all(tasks: int, dims: tuple, *vectors: Tensor) -> Iterator[Tensor]:
    """[channels] of each task as [tasks * channels]."""
    for dim, v in zip(dims, vectors, strict=True):
        yield (v.expand(tasks, -1) if dim is None else v.movedim(dim, 0)).flatten()
