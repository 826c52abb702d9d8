"""The fastest memory layout for images of vmapped tasks on a CPU: tasks as channels, channels last.

With [n, height, width, tasks * channels] a CPU needs less time than with torch's usual layout:

- batch norm: a third,
- gradients of strided convolutions: half to three quarters,
- a meta-step of conv4: 0.8 (docs/decisions.md).

Compiled code chooses its own layouts. GPU: not measured yet. So both keep torch's layout.
"""

from collections.abc import Iterator
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.func import debug_unwrap

Dims: TypeAlias = tuple[int | None, ...]  # the axis of each argument that vmap maps over; None: not mapped
LARGE_IMAGES, LARGE_FEATURES = 2**17, 2**20  # numbers in all tasks together; above this the layout saves time


def is_large(x: Tensor, least: int) -> bool:
    """Whether the layout saves time on x: on a CPU, not compiled, and with more than ``least`` numbers in all tasks."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and _of_all_tasks(x).numel() > least


def is_vmapped(x: Tensor) -> bool:
    """Whether x is one task's tensor under vmap; False in compiled code, which does not use this layout."""
    return not torch.compiler.is_compiling() and _of_all_tasks(x).ndim > x.ndim


def is_laid_out(images: Tensor) -> bool:
    """Whether images, [n, channels, height, width], are laid out channels last."""
    return images.stride(-1) > 1


def shape_of_all_tasks(x: Tensor) -> tuple[int, ...]:
    """The shape of the tensor of all tasks that x stands for under vmap."""
    return tuple(_of_all_tasks(x).shape)


def _of_all_tasks(x: Tensor) -> Tensor:
    """The tensor of all tasks that x stands for under vmap; use only its shape."""
    return debug_unwrap(x)


def channels_last(images: Tensor) -> Tensor:
    """The same images, [n, channels, height, width], laid out channels last if that saves time."""
    return applied(ChannelsLast, images) if is_large(images, LARGE_IMAGES) else images


class ChannelsLast(Function):
    """The identity in another layout; results and gradients inherit the layout."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None: ...

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0]

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Tensor) -> Tensor:
        return applied(ChannelsLast, grad_inputs[0])

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *args: Tensor) -> tuple[Tensor, int]:
        y: Tensor = applied(ChannelsLast, channels_of_all(info.batch_size, in_dims[0], args[0]))
        return split_tasks(y, info.batch_size, 1), 1


def channels_of_all(tasks: int, dim: int | None, x: Tensor) -> Tensor:
    """[n, channels, ...] of each task, stacked at ``dim`` (None: shared), as [n, tasks * channels, ...]."""
    x = x.unsqueeze(1).expand(-1, tasks, *[-1] * (x.ndim - 1)) if dim is None else x.movedim(dim, 1)
    return x.flatten(1, 2)


def vectors_of_all(tasks: int, dims: tuple[int | None, ...], vectors: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """[channels] of each task as [tasks * channels]."""
    for dim, v in zip(dims, vectors, strict=True):
        yield (v.expand(tasks, -1) if dim is None else v.movedim(dim, 0)).flatten()


def split_tasks(x: Tensor, tasks: int, dim: int) -> Tensor:
    """Split the axis ``dim`` of tasks * channels in two."""
    return x.reshape(*x.shape[:dim], tasks, -1, *x.shape[dim + 1 :])


def applied(function: type[Function], *args: Any) -> Any:
    """``function.apply(*args)``, because torch's ``apply`` has no type."""
    return cast(Any, function).apply(*args)
