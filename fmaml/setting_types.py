"""Types of settings, marks that add to a type, and traits of tasks.

`fmaml.config` reads them from signatures, without importing the code. A mark stands beside the type, as in
``root: Annotated[str | None, FreeOnResume] = None``. `gives` and `needs` are decorators of a source, a model or an
algorithm. Imports no torch.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar

from annotated_types import Ge, Gt, Le, Lt, MaxLen


class Mark(NamedTuple):
    """A property of a setting besides its type and range."""

    meaning: str


class Meaning(Mark):
    """The purpose of a setting, for `fmaml ls`, if its name and values do not tell."""


FreeOnResume = Mark("may change when a run is resumed: it does not affect learning")
CostsMemory = Mark("increases memory: named in the error if memory runs out")
KeepsTestTasks = Mark("does not change the test tasks: may differ between runs that `fmaml compare` tests")

Natural: TypeAlias = Annotated[int, Ge(0)]  # 0, 1, 2, ...
Count: TypeAlias = Annotated[int, Ge(1)]  # 1, 2, 3, ...
OneOrTwo: TypeAlias = Annotated[int, Ge(1), Le(2)]  # not a Literal, since true equals 1
Rate: TypeAlias = Annotated[float, Gt(0)]  # a step size
NonNegative: TypeAlias = Annotated[float, Ge(0)]
Unit: TypeAlias = Annotated[float, Ge(0), Le(1)]
Decay: TypeAlias = Annotated[float, Ge(0), Lt(1)]  # a momentum or an averaging constant
Ways: TypeAlias = Annotated[int, Ge(2)]
Batching: TypeAlias = Literal["vmap", "loop", "auto"]  # how the tasks of a meta-batch are evaluated
Change: TypeAlias = Literal["flip", "shift", "colour"]  # of a photograph in training
Precision: TypeAlias = Literal["float32", "tf32", "bf16"]  # of a network's arithmetic
Rule: TypeAlias = Literal["sgd", "momentum", "adam", "rmsprop"]  # of the inner steps
ALL_CLASSES = Meaning(
    "each training task is a batch of this size from all training classes, for algorithm.name=pretrain"
)

NORM_GROUPS = 8  # of the channels, with norm="group"

Size: TypeAlias = Annotated[Count, CostsMemory]  # such as a width or a length
Depth: TypeAlias = Annotated[Size, Le(1000)]  # layers; a thousand take a second to build
Widths: TypeAlias = Annotated[Sequence[Count], MaxLen(1000), CostsMemory]  # of each layer
Steps: TypeAlias = Annotated[Natural, CostsMemory]  # inner steps
PositiveSteps: TypeAlias = Annotated[Count, CostsMemory]  # inner steps of an algorithm that needs at least one
WaysOrRange: TypeAlias = Annotated[Ways | tuple[Ways, Ways], CostsMemory]  # of each task, or minimum and maximum
SizeOrRange: TypeAlias = Annotated[Count | tuple[Count, Count], CostsMemory]  # shots or queries, or their range
TrainWays: TypeAlias = Annotated[Ways | None, CostsMemory, KeepsTestTasks]  # of training tasks, if other than tested
TrainShots: TypeAlias = Annotated[Count | None, CostsMemory, KeepsTestTasks]
TrainBatch: TypeAlias = Annotated[Ways | None, CostsMemory, KeepsTestTasks, ALL_CLASSES]

TRAITS = {  # a trait of the tasks -> its name in messages
    "numbers": "examples of numbers",  # float, of any shape
    "images": "images",  # float [channels, height, width]
    "signals": "signals",  # float [channels, length]
    "symbols": "passages of symbols",  # int64 [length]
    "classes": "class numbers as targets",  # int64, one for each example
    "single_targets": "one target for each example",  # a class number, or a vector
    "own_loss": "a loss of their own",  # `Source.loss`, such as a policy gradient
}
IMPLIED = {"images": "numbers", "signals": "numbers", "classes": "single_targets"}
Function = TypeVar("Function", bound=Callable[..., Any])


def gives(*traits: str) -> Callable[[Function], Function]:
    """Declare the traits of the tasks that a data source makes.

    Args:
        traits: string literals. Of examples: ``numbers`` (float, any shape), ``images`` (float [channels, height,
            width]), ``signals`` (float [channels, length]) or ``symbols`` (int64 [length]). Of targets: ``classes``
            (int64 class numbers) or ``single_targets`` (one for each example). ``own_loss``: the source has a ``loss``.
            Images and signals imply numbers, and classes imply single targets.

    Returns:
        A decorator that returns the function unchanged. The declaration is read from the file, without importing it.

    >>> from fmaml.setting_types import Size, gives
    >>> @gives("numbers", "single_targets")
    ... def lines(*, seed: int, device: str, shots: Size = 5): ...
    """
    return lambda function: function


def needs(*traits: str) -> Callable[[Function], Function]:
    """Declare the traits of tasks that a model or an algorithm needs; data without them are refused.

    Args:
        traits: as in `gives`. A function without this declaration accepts all tasks.

    Returns:
        As in `gives`.

    >>> from fmaml.setting_types import Steps, needs
    >>> @needs("classes")
    ... def nearest_mean(loss_fn, *, steps: Steps): ...
    """
    return lambda function: function
