"""Values made of functions, such as models, pickle as the call that made them.

Pickle finds a function by its name, and one that was made within another has none. `picklable` marks a factory, whose
functions are then pickled as the factory's name, its arguments, and their place in what it returned; unpickled, the
factory is called again. So what comes out computes the same numbers, if the arguments can be pickled themselves.
"""

from collections.abc import Callable
from functools import cached_property, partial, wraps
from types import FunctionType
from typing import Any, ParamSpec, Self, TypeVar, cast

import torch

from .tree import map_leaves

P = ParamSpec("P")
R = TypeVar("R")
WHOLE = ""  # the place of a function that a factory returned by itself


class Call:
    """A call of a factory. The functions of one value share it, so that one call makes them all again."""

    def __init__(self, factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.factory, self.args, self.kwargs = factory, args, kwargs

    @cached_property
    def result(self) -> Any:
        """What the factory returns when it is called again."""
        return self.factory(*self.args, **self.kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return Call, (self.factory, self.args, self.kwargs)


class MadeFunction(partial[Any]):
    """A function that a factory made, at a place in what it returned; a partial, so that it is called directly."""

    call: Call
    place: str

    def __new__(cls, function: Callable[..., Any], call: Call, place: str) -> Self:
        made = super().__new__(cls, function)
        made.call, made.place = call, place
        return made

    def __repr__(self) -> str:
        return f"<{'.'.join(filter(None, [self.call.factory.__qualname__, self.place]))}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return made_again, (self.call, self.place)


def made_again(call: Call, place: str) -> Any:
    """The function at this place of what the call returns."""
    return call.result if place == WHOLE else getattr(call.result, place)


def picklable(factory: Callable[P, R]) -> Callable[P, R]:
    """The factory, with functions that can be pickled in what it returns: a function, or a named tuple of some.

    The call keeps the lists and dicts of its arguments as they are now, whatever the caller does to them later.

    >>> import pickle, torch, fmaml
    >>> step = pickle.loads(pickle.dumps(fmaml.sgd(0.5))).step
    >>> step({"p": torch.tensor(2.0)}, torch.tensor(0), {"p": torch.tensor(1.0)})[0]
    {'p': tensor(0.)}
    """

    @wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():  # what is made within a step is used there alone, and cannot be traced so
            return factory(*args, **kwargs)
        call = Call(make, map_leaves(itself, args), map_leaves(itself, kwargs))
        made: Any = factory(*call.args, **call.kwargs)
        if callable(made):
            return cast(R, MadeFunction(made, call, WHOLE))
        functions = {name: part for name, part in made._asdict().items() if not is_found_by_name(part)}
        return made._replace(**{name: MadeFunction(part, call, name) for name, part in functions.items()})

    return make


def itself(leaf: Any) -> Any:
    """The leaf: a map of it copies the containers of a tree."""
    return leaf


def is_found_by_name(part: Any) -> bool:
    """Whether pickle takes it as it is: it is no function, or a function at the top of a module."""
    named = isinstance(part, FunctionType) and "<" not in part.__qualname__  # neither <locals> nor <lambda>
    return named or isinstance(part, type) or not callable(part)
