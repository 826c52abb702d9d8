"""Words for the values a setting may take. Imports no torch: `fmaml.config` reads signatures written in these words."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

Natural = Annotated[int, Ge(0)]  # 0, 1, 2, ...
Count = Annotated[int, Ge(1)]  # 1, 2, 3, ...
OneOrTwo = Annotated[int, Ge(1), Le(2)]  # 1 or 2; as a Literal, true would pass for 1
Rate = Annotated[float, Gt(0)]  # a step size
NonNegative = Annotated[float, Ge(0)]
Unit = Annotated[float, Ge(0), Le(1)]
Decay = Annotated[float, Ge(0), Lt(1)]  # a momentum or an averaging constant
Ways = Annotated[int, Ge(2)]
Rule = Literal["sgd", "momentum", "adam", "rmsprop"]  # what an inner gradient passes through before the step
