"""FrozenSplit a module into a frozen part, which computes features, and the rest, which holds every learnt parameter.

    output = rest(features),  features = frozen part(x),  and features do not depend on learnt parameters

The split is found and checked by running the module, so it works for any class. Features can be computed once an
example.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from ..torch_fixes.unsupported_layers import RunningStats, prepare
from ..types import Model, Params
from .from_module import learnt_names, model_of
from .trial import Trial

SPLIT_TOLERANCE = 1e-9  # of the check in float64, relative to the largest value
STATISTICS_CURE = "with batch norm, give statistics=frozen"


class NoFeaturesError(ValueError):
    """The module has no features that can be computed once an example; the message gives the reason."""


class FrozenSplit(NamedTuple):
    """A module in two parts, each a model as of `from_module`."""

    features: Model  # without parameters: x [n, ..] -> features [n, ..]
    rest: Model  # (learnt parameters, features [n, ..]) -> output


def split_frozen(
    module: nn.Module, trainable: Sequence[str] | None, running_stats: RunningStats, x: Tensor
) -> FrozenSplit:
    """FrozenSplit the module before its learnt layers.

    Args:
        module: one that `from_module` takes with this ``trainable`` and ``running_stats``; it is not changed.
        x: two or more examples [n, ..] for the check, which is in float64 on the CPU.

    Raises:
        NoFeaturesError: no layer holds all learnt parameters, or the output depends on more than its input. Or the
            features of an example depend on the other examples.
    """
    learnt = learnt_names(module, trainable)
    skeleton = copy.deepcopy(module).requires_grad_(False)
    for layer in skeleton.modules():
        prepare(layer, running_stats)
    exact = copy.deepcopy(skeleton).cpu().double()
    reasons: list[str] = []
    for first, prefix in last_layers(skeleton, learnt):
        try:
            check_split(exact, split_at(exact, first, prefix, learnt), learnt, x.cpu().double())
            return split_at(skeleton, first, prefix, learnt)
        except (ValueError, RuntimeError, TypeError) as error:  # of layers that do not run by themselves
            reasons.append(str(error).splitlines()[0])
    raise NoFeaturesError(reasons[0] if reasons else "no layer but the whole network holds all learnt parameters")


def last_layers(module: nn.Module, learnt: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The layers that hold all learnt parameters, the smallest first: (first layer, prefix of parameter names).

    The first layer differs from the layer itself in an `nn.Sequential`: its end can hold all learnt parameters.
    """
    ids = {id(module.get_parameter(name)) for name in learnt}
    layer, path, found = module, "", list[tuple[str, str]]()
    while True:
        if path:
            found.append((path[:-1], path))
        holding = [name for name, child in layer.named_children() if ids & set(map(id, child.parameters()))]
        own = ids & set(map(id, layer.parameters(recurse=False)))
        if not own and holding and type(layer) is nn.Sequential:
            found.append((path + holding[0], path))
        if own or len(holding) != 1:
            return reversed(found)
        layer, path = layer.get_submodule(holding[0]), f"{path}{holding[0]}."


def split_at(module: nn.Module, first: str, prefix: str, learnt: Sequence[str]) -> FrozenSplit:
    """The two parts of a prepared module, before the layer ``first`` of the layer ``prefix``."""
    rest = module.get_submodule(prefix[:-1])
    if isinstance(rest, nn.Sequential) and first != prefix[:-1]:
        rest = rest[list(rest).index(module.get_submodule(first)) :]
    own = model_of_part(rest, tuple(name.removeprefix(prefix) for name in learnt))

    def init(generator: Generator) -> Params:
        return {prefix + name: value for name, value in own.init(generator).items()}

    def apply(params: Params, x: Tensor) -> Tensor:
        return own.apply({name.removeprefix(prefix): value for name, value in params.items()}, x)

    return FrozenSplit(model_of_part(UpTo(module, first), ()), Model(init, apply))


def model_of_part(part: nn.Module, learnt: tuple[str, ...]) -> Model:
    """The model of a part of a prepared module."""
    return model_of(part, learnt, None, "refuse", Trial(part, part, learnt, {}))


class _Reached(Exception):
    """Ends a forward pass at a layer; no error."""


class UpTo(nn.Module):
    """The module up to a layer: it returns the input of that layer."""

    def __init__(self, whole: nn.Module, layer: str) -> None:
        super().__init__()
        self.whole, self.layer = whole, layer

    def forward(self, x: Any) -> Tensor:
        """The first input of the layer; NoFeaturesError if that is not one tensor."""
        reached: list[Any] = []

        def stop(_: nn.Module, *given: Any) -> None:
            reached.extend(given)
            raise _Reached

        handle = self.whole.get_submodule(self.layer).register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.whole(x)
        except _Reached:
            args, kwargs = reached
            if not kwargs and len(args) == 1 and isinstance(args[0], Tensor):
                return args[0]
        finally:
            handle.remove()
        raise NoFeaturesError(f"{self.layer}, which is learnt, is not called with one tensor")


def check_split(module: nn.Module, split: FrozenSplit, learnt: Sequence[str], x: Tensor) -> None:
    """NoFeaturesError unless the parts give the module's output, for any learnt values, and for each example alone."""
    features = split.features.apply({}, x)
    if features.shape[1:] == x.shape[1:] or len(features) != len(x):
        raise NoFeaturesError(f"the input of the learnt layers is {list(features.shape[1:])}, no features")
    if not equal_but_for_rounding(split.features.apply({}, x[:1]), features[:1]):
        raise NoFeaturesError(f"the features of an example depend on the other examples; {STATISTICS_CURE}")
    whole, params = model_of_part(module, tuple(learnt)), split.rest.init(Generator())
    generator = Generator().manual_seed(0)
    other = {name: p + torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in params.items()}
    for values in (params, other):
        if not equal_but_for_rounding(split.rest.apply(values, features.clone()), whole.apply(values, x)):
            raise NoFeaturesError("the output depends on other values than the input of the learnt layers")


def equal_but_for_rounding(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal but for rounding in float64."""
    return one.shape == other.shape and bool((one - other).abs().max() <= SPLIT_TOLERANCE * other.abs().max())
