"""Words for the values that a setting may take, and marks that say what else is known of it. Imports no torch.

`fmaml.config` reads signatures that are written in these words. A mark stands beside the type, as in
``root: Annotated[str | None, FreeOnResume] = None``, so that what is known of a setting stands with the setting.
"""

from typing import Annotated, Literal, NamedTuple, TypeAlias

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
