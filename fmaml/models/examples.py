"""Read the examples of a support set: pictures or numbers, and their classes or values."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.preprocessing import Ink
from ..types import Batch
from .blueprint import Blueprint
from .user_images import Shape, read_support, to_inputs, to_tensor


class ReadExamples(NamedTuple):
    """Examples in the units of a network."""

    batch: Batch
    classes: list[str]  # the names of the class numbers; empty for values
    white: int  # of 16-bit pictures, see `Shape`


def read_examples(
    blueprint: Blueprint, shape: Shape, support: Any, targets: Any, ink: Ink, known: Sequence[str] = ()
) -> ReadExamples:
    """The examples of `Learner.adapt` for a network of this shape; ``known`` are the classes adapted to before.

    Raises ValueError and Error as `Learner.adapt`.
    """
    white = shape.white
    if targets is None and not isinstance(support, Tensor):
        if blueprint.targets != "classes":
            raise ValueError(
                "adapt: this network was trained for values, so x needs its targets: adapt(x, y), in Python alone"
            )
        by_class, white = read_support(support, shape, ink, least=1 if known else 2)
        classes = sorted(by_class)
        x = torch.cat([by_class[name] for name in classes])
        y = torch.repeat_interleave(torch.tensor([len(by_class[name]) for name in classes]))
    elif targets is None:
        raise ValueError("adapt: a support set that is a tensor needs its targets")
    else:
        x, y = to_inputs(support, shape), to_tensor(targets, "adapt: targets are numbers")
        named = blueprint.targets == "classes"
        classes = names_of_classes(y, len(x), known) if named else []
        y = y if named else targets_as_values(y, len(x), blueprint, shape)
    batch = Batch(x, y)
    return ReadExamples(batch if blueprint.scaling is None else blueprint.scaling.support(batch), classes, white)


def targets_as_values(y: Tensor, examples: int, blueprint: Blueprint, shape: Shape) -> Tensor:
    """Targets that are values or symbols, in the network's type; ValueError if there is not one an example."""
    outputs, are_values = blueprint.outputs, blueprint.targets == "values"
    if are_values:
        y = y.to(shape.dtype)
        if y.ndim == 1 and outputs == 1:
            y = y[:, None]
    if len(y) != examples or (are_values and y.shape[1:] != (outputs,)):
        wanted = f"[{examples}, {outputs}]" if are_values else f"{examples}"
        raise ValueError(f"adapt: {examples} examples need targets {wanted}; these are {list(y.shape)}")
    return y


def names_of_classes(y: Tensor, examples: int, known: Sequence[str] = ()) -> list[str]:
    """The classes "0", "1", .. of class numbers; ValueError unless each of two or more occurs, one for each example.

    Numbers of ``known`` classes stand for these, and need not occur.
    """
    if y.shape != (examples,) or y.dtype != torch.int64:
        found = f"{str(y.dtype).removeprefix('torch.')} {list(y.shape)}"
        raise ValueError(
            f"adapt: targets must be int64 [{examples}], a class number for each example; these are {found}"
        )
    numbers = sorted({*y.tolist(), *range(len(known))})
    if len(numbers) < 2 or numbers != list(range(len(numbers))):
        raise ValueError("adapt: class numbers must be 0, 1, .. for two or more classes, each with an example")
    names = list(map(str, numbers))
    if names[len(known) :] and names[: len(known)] != list(known):
        raise ValueError("add: a class number has no name, but the other classes do; give a mapping {name: examples}")
    return [*known, *names[len(known) :]]
