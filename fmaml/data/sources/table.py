"""Your own table: regression. Each value of the task column is one task."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from ...errors import Error, note
from ...files.plain_text import counted
from ...losses import Apply, mse, transductive
from ...setting_types import FreeOnResume, Natural, Size, Unit
from ...types import Batch, Params, Task
from ..class_splits import random_split
from ..preprocessing import Scaling
from ..source import About, Metric, Sample, Source
from ..tables.csv_table import Array, Table, numbers, numeric_columns, read_csv, with_values, words
from ..tables.linear import Linear, fit_linear, linear_references
from ..tables.rows import Rows, pack_rows, sample_rows

TASKS_OF_REFERENCES = 200  # training tasks that choose the references' penalty
Groups = dict[str, list[int]]  # the value of the task column -> its rows


def table(
    *,
    seed: int,
    device: torch.device,
    file: Annotated[str, FreeOnResume],
    task: str,
    target: str,
    features: Sequence[str] = (),
    shots: Size = 5,
    queries: Size = 5,
    fractions: tuple[Unit, Unit, Unit] = (0.64, 0.16, 0.2),
    split_seed: Natural = 0,
    strict: bool = False,
) -> Source:
    """Your own table, a CSV file: predict ``target``. Each value of the column ``task`` is one task.

    Returns a source of tasks: support x float32 [tasks, shots, features] and y float32 [tasks, shots, 1]. The query set
    has the same shapes with ``queries`` instead of ``shots``. The rows of a task are all different. ``features`` are
    columns of numbers, by default all but ``task``, ``target`` and row numbers. Columns of words are left out. So are
    rows without a value, and tasks with too few rows; they are counted, or an error if ``strict``.

    Features and target are scaled to mean 0 and standard deviation 1 over the rows of the training tasks. The metric is
    the mean squared error in the target's original units. A trained model takes and gives original units.

    Tasks are split by ``fractions`` (train, val, test) and ``split_seed``. Tensors are on ``device``. Tasks depend only
    on ``seed``. Raises Error, with line and column, for a table that cannot be used.
    """
    content = read_csv(Path(file).expanduser(), "data.file")
    columns = _features(content, task, target, features)
    if not strict:
        content = large_tasks(with_values(content, [task, target, *columns]), task, shots + queries)
    rows = counted(len(content.rows), "row")
    note(f"{content.file}: {rows}; task {task}, target {target}, by {', '.join(columns[:10])}")
    names, x = words(content, "data.task", task), numbers(content, "data.features", columns)
    y = numbers(content, "data.target", [target])  # [rows, 1]
    groups = _groups(content, task, names, shots + queries)
    split = random_split(sorted(groups), fractions, split_seed)
    train = [row for name in split["train"] for row in groups[name]]
    scaling = _scaling(columns, target, x[train], y[train])
    splits = {part: _pack(groups, names, scaling, x, y, device) for part, names in split.items()}
    counts = {part: len(names) for part, names in split.items()}
    about = {
        "data": "table",
        "license": "that of your table",
        "files": [content.file],
        "task": f"{shots}-shot {target}",
        "protocol": f"{target} by {', '.join(columns)}; {shots} support and {queries} query rows of one {task}, from "
        f"{counts['test']} unseen values of {task}",
        "groups": counts,
    }
    return grouped_rows(splits, about, scaling, seed=seed, shots=shots, queries=queries)


def grouped_rows(
    splits: dict[str, Rows], about: About, scaling: Scaling, *, seed: int, shots: int, queries: int
) -> Source:
    """Make a source of tasks from scaled rows."""
    sample = partial(sample_rows, splits, seed, shots=shots, queries=queries)
    linear = fit_linear(splits["train"].x, splits["train"].y, sample("train", 0, range(TASKS_OF_REFERENCES)))
    return Source(
        sample,
        inputs=(len(scaling.columns),),
        outputs=1,
        about=about,
        show=_save_predictions,
        criterion=mse,
        metric=Metric("MSE", partial(_mse_in_units, scaling.y_scale), ".4g", more_is_better=False),
        settings=(transductive,),
        references=partial(_references, sample, linear, scaling.y_scale),
        data=dict(splits),
        scaling=scaling,
    )


def _mse_in_units(scale: float, output: Tensor, y: Tensor) -> Tensor:
    """The mean squared error of a standardised target, in its original units."""
    return mse(output, y) * scale**2


def _references(sample: Sample, linear: Linear, scale: float, split: str, step: int, tasks: range) -> dict[str, Tensor]:
    found = linear_references(sample(split, step, tasks), linear)
    return {name: value * scale**2 for name, value in found.items()}


def _features(content: Table, task: str, target: str, features: Sequence[str]) -> list[str]:
    """The names of the features; Error if there are none, or one is the task, the target or repeated."""
    content.position("data.task", task)
    content.position("data.target", target)
    if task == target:
        raise Error(f"data.target = {target}: is also data.task; name the column of numbers to predict")
    if features and not any(content.nearest(name) for name in features):  # those of another table
        known = f"{', '.join(features)}, as in the table of the experiment"
        note(f"{content.file}: no column {known}; every column of numbers is a feature")
        features = ()
    found = list(features) or numeric_columns(content, {task, target})
    if not found:
        raise Error(f"{content.file}: no column of numbers besides {task} and {target}; add one to predict from")
    for name in found:
        if name in (task, target) or found.count(name) > 1:
            why = "is listed twice" if found.count(name) > 1 else "is the task or the target"
            raise Error(f"data.features: {name} {why}; leave it out")
    return found


def large_tasks(content: Table, task: str, least: int) -> Table:
    """The table without tasks of fewer than ``least`` rows, if three tasks are left; a line counts them."""
    names = content.cells(content.position("data.task", task))
    counts = Counter(names)
    small = [name for name, count in counts.items() if count < least]
    if not small or len(counts) - len(small) < 3:
        return content
    note(f"{content.file}: {counted(len(small), 'task')} of fewer than {least} rows left out, such as {small[0]}")
    return content.of_rows([i for i, name in enumerate(names) if counts[name] >= least])


def _groups(content: Table, task: str, names: list[str], least: int) -> Groups:
    """The rows of each task; Error for fewer than three tasks, or a task of fewer than ``least`` rows."""
    groups: Groups = defaultdict(list)
    for row, name in enumerate(names):
        groups[name].append(row)
    if len(groups) < 3:
        raise Error(
            f"data.task = {task}: {content.file} has {len(groups)} different values there. Each is a task, and "
            f"train, val and test need one each; name a column with 3 values or more"
        )
    smallest = min(groups, key=lambda name: len(groups[name]))
    if len(groups[smallest]) < least:
        rows = groups[smallest]
        raise Error(
            f"{content.file}, line {content.lines[rows[0]]}: task {smallest} has {len(rows)} rows, fewer than "
            f"data.shots + data.queries = {least}; give at most {len(rows)}, or delete the tasks with fewer"
        )
    return dict(groups)


def _scaling(columns: list[str], target: str, x: Array, y: Array) -> Scaling:
    """Mean and standard deviation of the training rows; Error for a constant column."""
    for name, column in zip([*columns, target], np.concatenate([x, y], 1).T, strict=True):
        if np.ptp(column) == 0:
            cure = "name another target" if name == target else "leave it out by data.features=[...]"
            raise Error(f"column {name} is {column[0]:g} in all rows of the training tasks; {cure}")
    return Scaling(x.mean(0).tolist(), x.std(0).tolist(), y.mean().item(), y.std().item(), tuple(columns), target)


def _pack(groups: Groups, names: list[str], scaling: Scaling, x: Array, y: Array, device: torch.device) -> Rows:
    """Scale and pack the rows of some tasks."""
    parts = [Batch(torch.from_numpy(x[groups[name]]), torch.from_numpy(y[groups[name]])) for name in names]
    return pack_rows([scaling.support(part) for part in parts], device)


def _save_predictions(folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
    from ..pictures import save_predictions  # imported here because matplotlib takes half a second

    save_predictions(folder, tasks, phis, apply)
