"""Words for the values that a setting may take, marks that say what else is known of it, and traits of tasks.

`fmaml.config` reads signatures that are written in these words, without importing them. A mark stands beside the type,
as in ``root: Annotated[str | None, FreeOnResume] = None``; `gives` and `needs` stand above the function. So what is
known of a setting or a function stands with it. Imports no torch.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar

from annotated_types import Ge, Gt, Le, Lt


class Mark(NamedTuple):
    """What is known of a setting besides its type and range."""

    meaning: str


class Meaning(Mark):
    """What a setting does, for `fmaml ls`, where its name and its values do not say it."""


FreeOnResume = Mark("may change when a run is resumed: it does not touch what is learnt")
CostsMemory = Mark("memory grows with it: named when there is too little")

Natural: TypeAlias = Annotated[int, Ge(0)]  # 0, 1, 2, ...
Count: TypeAlias = Annotated[int, Ge(1)]  # 1, 2, 3, ...
OneOrTwo: TypeAlias = Annotated[int, Ge(1), Le(2)]  # 1 or 2; as a Literal, true would pass for 1
Rate: TypeAlias = Annotated[float, Gt(0)]  # a step size
NonNegative: TypeAlias = Annotated[float, Ge(0)]
Unit: TypeAlias = Annotated[float, Ge(0), Le(1)]
Decay: TypeAlias = Annotated[float, Ge(0), Lt(1)]  # a momentum or an averaging constant
Ways: TypeAlias = Annotated[int, Ge(2)]
Batching: TypeAlias = Literal["vmap", "loop", "auto"]  # how the tasks of a meta-batch are evaluated
Change: TypeAlias = Literal["flip", "shift"]  # of a photograph in training
Precision: TypeAlias = Literal["float32", "tf32", "bf16"]  # of a network's arithmetic
Rule: TypeAlias = Literal["sgd", "momentum", "adam", "rmsprop"]  # what an inner gradient goes through before the step

NORM_GROUPS = 8  # norm="group" normalises the channels in this many groups

Size: TypeAlias = Annotated[Count, CostsMemory]  # such as a width or a length
Steps: TypeAlias = Annotated[Natural, CostsMemory]  # inner steps
PositiveSteps: TypeAlias = Annotated[Count, CostsMemory]  # inner steps of an algorithm that needs one
WaysOrRange: TypeAlias = Annotated[Ways | tuple[Ways, Ways], CostsMemory]  # of each task, or the least and the most
SizeOrRange: TypeAlias = Annotated[Count | tuple[Count, Count], CostsMemory]  # shots or queries, or least and most

TRAITS = {  # a trait of the tasks -> its name in messages
    "numbers": "examples of numbers",  # float, of any shape
    "images": "images",  # float [channels, height, width]
    "signals": "signals",  # float [channels, length]
    "symbols": "passages of symbols",  # int64 [length]
    "classes": "class numbers as targets",  # int64, one an example
    "single_targets": "one target for each example",  # a class number, or a vector
    "episodes": "episodes of a policy",  # the noise of its actions, and a goal
}
IMPLIED = {"images": "numbers", "signals": "numbers", "episodes": "numbers", "classes": "single_targets"}
Function = TypeVar("Function", bound=Callable[..., Any])


def gives(*traits: str) -> Callable[[Function], Function]:
    """Declare the traits of the tasks that a data source makes, above its function.

    Args:
        traits: string literals, each one of ``numbers`` (float examples of any shape), ``images`` (float [channels,
            height, width]), ``signals`` (float [channels, length]), ``symbols`` (int64 [length]), ``classes`` (int64
            class numbers as targets), ``single_targets`` (one target an example) and ``episodes`` (of a policy).
            Images, signals and episodes are numbers too, and classes are single targets.

    Returns:
        A decorator that leaves the function as it is: the declaration is read from the file, without importing it.

    >>> from fmaml.setting_types import Size, gives
    >>> @gives("numbers", "single_targets")
    ... def lines(*, seed: int, device: str, shots: Size = 5): ...
    """
    return lambda function: function


def needs(*traits: str) -> Callable[[Function], Function]:
    """Declare the traits that a model or an algorithm needs of the tasks; data without them are refused by name.

    Args:
        traits: as in `gives`; a function without the declaration takes any tasks.

    Returns:
        As `gives`.

    >>> from fmaml.setting_types import Steps, needs
    >>> @needs("classes")
    ... def nearest_mean(loss_fn, *, steps: Steps): ...
    """
    return lambda function: function
