"""The networks and tasks of the benchmarks."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

import fmaml
from fmaml.data.sources.glyphs import glyphs
from fmaml.data.sources.sinusoid import sinusoid
from fmaml.losses import Apply, Criterion
from fmaml.types import Algorithm, Batch, LossFn, Model, Params, Task


class Problem(NamedTuple):
    """A network, its loss and its tasks, on a device."""

    apply: Apply
    criterion: Criterion
    params: Params
    inner_lr: float
    tasks: Callable[[int], Task]  # number of tasks -> the tasks, stacked

    @property
    def loss_fn(self) -> LossFn:
        return fmaml.supervised(self.apply, self.criterion)

    def maml(self, steps: int, **options: Any) -> Algorithm:
        return fmaml.maml(self.loss_fn, inner_lr=self.inner_lr, steps=steps, **options)

    def step(self, algorithm: Algorithm, tasks: Task, **options: Any) -> Callable[[], Any]:
        """One meta-step from the initial parameters with Adam as outer optimizer; always the same step."""
        optimizer = fmaml.adam(1e-3)
        state = fmaml.init_state(algorithm, optimizer, self.params)
        return lambda: fmaml.meta_step(algorithm, optimizer, state, tasks, **options)


def conv28(device: torch.device, queries: int = 15, width: int = 64) -> Problem:
    """conv4 as on Omniglot: 64 filters, strided, 5-way 1-shot, drawn characters of 28x28x1."""
    source = glyphs(seed=0, device=device, ways=5, shots=1, queries=queries, rotate=())
    model = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=width)
    return problem(model, fmaml.cross_entropy, 0.4, device, lambda n: source.sample("train", 0, range(n)))


def conv32(device: torch.device) -> Problem:
    """conv4 as on CIFAR-FS: 32 filters, max-pooled, 5-way 1-shot, 15 queries a class; noise of 32x32x3."""
    return colours(device, 32)


def conv84(device: torch.device) -> Problem:
    """conv4 as on mini-ImageNet: like `conv32`, on noise of 84x84x3."""
    return colours(device, 84)


def colours(device: torch.device, side: int) -> Problem:
    model = fmaml.conv4(inputs=(3, side, side), outputs=5, width=32, pool="max")

    def images(tasks: int, each: int) -> Batch:
        labels = torch.arange(5, device=device).repeat_interleave(each)
        return Batch(torch.rand(tasks, 5 * each, 3, side, side, device=device), labels.repeat(tasks, 1))

    return problem(model, fmaml.cross_entropy, 0.01, device, lambda n: Task(images(n, 1), images(n, 15)))


def is_pooled(params: Params) -> bool:
    """Whether a conv4 with these parameters halves its images by max-pooling, not by strides."""
    return params["head.weight"].shape[1] != params["conv4.weight"].shape[0]


def mlp(device: torch.device) -> Problem:
    """The sinusoid network, 40-40: 10 support points and 10 query points."""
    source = sinusoid(seed=0, device=device)
    model = fmaml.mlp(inputs=(1,), outputs=1)
    return problem(model, fmaml.mse, 0.01, device, lambda n: source.sample("train", 0, range(n)))


def transformer(device: torch.device) -> Problem:
    """The network of experiments/languages.yaml: 4 support and 4 query passages of 64 bytes; noise."""
    model = fmaml.transformer(inputs=(64,), outputs=256, width=64, heads=4, layers=2)

    def passages(tasks: int) -> Batch:
        symbols = torch.randint(256, (tasks, 4, 65), device=device)
        return Batch(symbols[..., :-1], symbols[..., 1:])

    return problem(model, fmaml.cross_entropy, 0.2, device, lambda n: Task(passages(n), passages(n)))


def problem(model: Model, criterion: Criterion, lr: float, device: torch.device, tasks: Any) -> Problem:
    """Build a problem; the parameters are drawn on the CPU, so that they are the same on every device."""
    params = {name: p.to(device) for name, p in model.init(torch.Generator().manual_seed(0)).items()}
    return Problem(model.apply, criterion, params, lr, tasks)


PROBLEMS: dict[str, Callable[[torch.device], Problem]] = {
    "conv4 28x28x1": conv28,
    "conv4 32x32x3": conv32,
    "conv4 84x84x3": conv84,
    "mlp 40-40": mlp,
    "transformer": transformer,
}


class Row(NamedTuple):
    """A meta-gradient that several benchmarks measure."""

    make: Callable[[torch.device], Problem]
    tasks: int
    steps: int


ROWS = {
    "mlp 40-40": Row(mlp, 25, 5),
    "conv4 28x28x1": Row(conv28, 16, 1),
    "conv4 28x28x1, 5 steps": Row(partial(conv28, queries=5), 16, 5),
    "conv4 32x32x3": Row(conv32, 16, 1),
    "conv4 84x84x3": Row(conv84, 4, 1),
    "conv4 84x84x3, 5 steps": Row(conv84, 4, 5),  # mini-ImageNet as published
}
