"""How the images of many tasks lie in memory while they are vmapped on a CPU: tasks as channels, and channels last.

On [n, height, width, tasks * channels] batch norm takes a third of its time in torch's usual order there, the gradients
of strided convolutions half to three quarters, and a meta-step of conv4 0.8 (benchmarks/conv_lowering.py has the last).
A compiler chooses layouts by itself; a GPU has not been measured.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.func import debug_unwrap

LARGE_IMAGES, LARGE_FEATURES = 2**17, 2**20  # numbers in those of all tasks, from where another layout saves time


def is_large(x: Tensor, least: int) -> bool:
    """Whether another layout of x saves more time than its operators' own calls take: on a CPU, uncompiled, large."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and _of_all_tasks(x).numel() > least


def is_vmapped(x: Tensor) -> bool:
    """Whether x is one of many tasks', all of which are done at once; of no use to a compiler, which gets False."""
    return not torch.compiler.is_compiling() and _of_all_tasks(x).ndim > x.ndim


def _of_all_tasks(x: Tensor) -> Tensor:
    """The tensor of all tasks that x stands for under vmap. Only its shape is used."""
    return debug_unwrap(x)


def channels_last(images: Tensor) -> Tensor:
    """The same images, [n, channels, height, width], laid out as said above where that saves time."""
    return applied(ChannelsLast, images) if is_large(images, LARGE_IMAGES) else images


class ChannelsLast(Function):
    """The identity. What is computed from its result is laid out like it, and so are the gradients."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None: ...

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None], *args: Tensor) -> tuple[Tensor, int]:
        y: Tensor = applied(ChannelsLast, channels_of_all(info.batch_size, in_dims[0], args[0]))
        return split_tasks(y, info.batch_size, 1), 1


def channels_of_all(tasks: int, dim: int | None, x: Tensor) -> Tensor:
    """[n, channels, ...] of each task, stacked at ``dim`` (None: the same for all), as [n, tasks * channels, ...]."""
    x = x.unsqueeze(1).expand(-1, tasks, *[-1] * (x.ndim - 1)) if dim is None else x.movedim(dim, 1)
    return x.flatten(1, 2)


def vectors_of_all(tasks: int, dims: tuple[int | None, ...], vectors: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """[channels] of each task as [tasks * channels]."""
    for dim, v in zip(dims, vectors, strict=True):
        yield (v.expand(tasks, -1) if dim is None else v.movedim(dim, 0)).flatten()


def split_tasks(x: Tensor, tasks: int, dim: int) -> Tensor:
    """An axis of tasks * channels as two."""
    return x.reshape(*x.shape[:dim], tasks, -1, *x.shape[dim + 1 :])


def applied(function: type[Function], *args: Any) -> Any:
    """``function.apply``, which torch leaves without a type."""
    return cast(Any, function).apply(*args)
