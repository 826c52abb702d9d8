"""What the rest of the library knows of a data source."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..types import Task


class Source(NamedTuple):
    """A source of tasks.

    ``sample(split, step, tasks)`` returns the stacked tasks of one meta-batch. ``tasks`` is a range of task numbers:
    process r of R samples its own slice and together they see what one process would have seen, since task i of
    (split, step) is a function of (seed, split, step, i) alone.
    """

    sample: Callable[[str, int, range], Task]  # split is "train", "val" or "test"
    inputs: tuple[int, ...]  # the shape of one x, such as (1, 28, 28)
    outputs: int  # the width of the model's output: ways for classification
    about: dict[str, Any]  # what a report says: ways, shots, queries, classes of each split, where the data lay
