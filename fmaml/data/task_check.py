"""What must be true of a source's tasks before anything is trained on them: shapes, types and labels."""

import torch

from ..errors import UserError
from ..types import Batch, Task
from .source import Source


def check_tasks(split: str, tasks: Task, source: Source) -> None:
    """UserError that says what is wrong with stacked tasks of a source."""
    for name, batch in tasks._asdict().items():
        if problem := _problem(batch, source):
            raise UserError(f"data: the {name} set of split {split} {problem}")


def _problem(batch: Batch, source: Source) -> str:
    x, y = batch
    if source.loss is None and tuple(x.shape[2:]) != source.inputs:
        return f"has examples of shape {list(x.shape[2:])}, and the source says inputs = {list(source.inputs)}"
    if y.shape[:2] != x.shape[:2]:
        return f"has {list(y.shape[:2])} targets for {list(x.shape[:2])} examples, each [tasks, n]; give one for each"
    if y.is_floating_point():
        return "" if y.isfinite().all() else "has targets that are not finite"
    if y.dtype != torch.int64:
        return f"has labels of type {str(y.dtype).removeprefix('torch.')}; they must be int64"
    if int(y.max()) >= source.outputs:
        return f"has label {int(y.max())}, and the network {source.outputs} outputs; labels go from 0 to one less"
    return "" if (y >= 0).flatten(1).any(1).all() else "has a task in which no label counts: all are negative"
