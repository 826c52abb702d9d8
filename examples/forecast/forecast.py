"""Forecasts of yearly series: a task is a series, its past the support set, its last years the query set.

An example is a year t, the origin. x holds the last changes of the logarithm up to t, y the changes from t to t + 1,
.., t + horizons. Both are in units of the series' mean absolute change of a year, measured before the first query. So
the mean absolute error of y is the mean absolute scaled error (Hyndman and Koehler 2006) of the logarithm.
"""

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor

import fmaml
from fmaml.data import Metric, Source, task_keys
from fmaml.data.tables.csv_table import numbers, read_csv, with_values, words
from fmaml.rng import fold, uniform
from fmaml.setting_types import FreeOnResume, Size, gives

from .baselines import Baselines, errors, fit_baselines

FOLDS = 5
LEAST_CHANGE = 0.01  # the smallest unit of a series: a change of 1 % a year
Logs = dict[str, Tensor]  # name -> the logarithms of a series, float64 [years], that all end in the same year


def absolute_error(output: Tensor, y: Tensor) -> Tensor:
    """The mean absolute error, a scalar."""
    return (output - y).abs().mean()


SCALED_ERROR = Metric("scaled error", absolute_error, ".3f", more_is_better=False)


class Window(NamedTuple):
    """The sizes of a task, in years."""

    lags: int
    horizons: int
    shots: int
    queries: int

    @property
    def first_query(self) -> int:
        """The position of the first query's origin; every support target lies at or before it."""
        return self.lags + self.shots + self.horizons - 1

    @property
    def tested(self) -> int:
        """The years after the first query's origin."""
        return self.queries + self.horizons - 1

    @property
    def years(self) -> int:
        return self.first_query + self.tested + 1


@gives("numbers", "single_targets")
def forecast(
    *,
    seed: int,
    device: torch.device,
    root: Annotated[str | None, FreeOnResume] = None,
    series: str = "Country",
    time: str = "Year",
    value: str = "Total",
    lags: Size = 8,
    horizons: Size = 5,
    shots: Size = 20,
    queries: Size = 6,
    part: Annotated[int, Ge(0), Le(4)] = 0,
) -> Source:
    """Series of a CSV file ``root``, one row for each ``series`` and ``time``; without a file, made ones.

    Support x float32 [tasks, shots, lags + 1], y float32 [tasks, shots, horizons]; the query set has ``queries``
    instead. The last number of x is the logarithm of the series' unit. Test series are one of five parts, validation
    series the next. Training and validation end before the years that are tested, at any year; test task i is test
    series i in its last years.
    """
    window = Window(lags, horizons, shots, queries)
    logs = read_logs(root, series, time, value) if root else made_logs()
    logs = {name: z for name, z in logs.items() if len(z) >= window.years + window.tested}
    if len(logs) < FOLDS:
        raise ValueError(f"data.root = {root}: {len(logs)} series are long enough; {FOLDS} or more are needed")
    names = {split: names_of(sorted(logs), split, part) for split in ("train", "val", "test")}
    splits = {split: pack([logs[name] for name in chosen], device) for split, chosen in names.items()}
    sample = partial(sample_tasks, splits, window, seed, device)
    fitted: list[Baselines] = []

    def references(split: str, step: int, tasks: range) -> dict[str, Tensor]:
        if not fitted:
            fitted.append(fit_baselines(sample))
        task = sample(split, step, tasks)
        return {name: error.mean(-1) for name, error in errors(fitted[0], task).items()}

    counts = {split: len(chosen) for split, chosen in names.items()}
    about = {
        "data": Path(root).name if root else "made series",
        "task": f"{horizons} years ahead from {shots} windows",
        "protocol": f"series never seen ({counts['train']} train, {counts['val']} validation, {counts['test']} test)",
        "names": names["test"],
    }
    source = Source(sample, (lags + 1,), horizons, about, criterion=absolute_error, metric=SCALED_ERROR)
    data = {split: {"logs": z, "years": years} for split, (z, years) in splits.items()}
    return source._replace(settings=(fmaml.transductive,), references=references, data=data)


def read_logs(root: str, series: str, time: str, value: str) -> Logs:
    """The last years without gap of each series that reaches the last year of the file and is above 0 there."""
    content = with_values(read_csv(Path(root).expanduser(), "data.root"), [series, time, value])
    names = words(content, "data.series", series)
    rows: dict[str, dict[int, float]] = defaultdict(dict)
    for name, (year, amount) in zip(names, numbers(content, "data.time", [time, value]).tolist(), strict=True):
        rows[name][int(year)] = amount
    last = max(max(known) for known in rows.values())
    found: Logs = {}
    for name, known in rows.items():
        first = last + 1
        while known.get(first - 1, 0) > 0:
            first -= 1
        found[name] = torch.tensor([known[year] for year in range(first, last + 1)], dtype=torch.float64).log()
    return found


def made_logs(count: int = 1000, years: int = 80) -> Logs:
    """Series with changes d_t = a + b (d_t-1 - a) + noise. Each has its own a, b in [-0.9, 0.9], and noise."""
    noise = torch.Generator().manual_seed(0)
    a, b, sigma = torch.rand(3, count, generator=noise, dtype=torch.float64)
    a, b, sigma = 0.04 * a - 0.01, 1.8 * b - 0.9, 0.02 + 0.08 * sigma
    changes = [a]
    for drawn in torch.randn(years - 1, count, generator=noise, dtype=torch.float64):
        changes.append(a + b * (changes[-1] - a) + sigma * drawn)
    return {f"made {i:03}": z for i, z in enumerate(torch.stack(changes, 1).cumsum(1))}


def names_of(names: list[str], split: str, part: int) -> list[str]:
    """The series of a split. Each series is tested in one of the five parts."""
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0)).tolist()
    parts = [[names[i] for i in order[k::FOLDS]] for k in range(FOLDS)]
    chosen = {"test": [part], "val": [(part + 1) % FOLDS], "train": [(part + k) % FOLDS for k in range(2, FOLDS)]}
    return [name for k in chosen[split] for name in parts[k]]


def pack(series: list[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """The series [series, years], with zeros before their first year, and the number of years of each [series]."""
    years = torch.tensor([len(z) for z in series])
    packed = [torch.cat([z.new_zeros(int(years.max()) - len(z)), z]) for z in series]
    return torch.stack(packed).to(device), years.to(device)


def sample_tasks(
    splits: dict[str, tuple[Tensor, Tensor]],
    window: Window,
    seed: int,
    device: torch.device,
    split: str,
    step: int,
    tasks: range,
) -> fmaml.Task:
    """Test tasks in order, each at the end of its series; others of any series, that end in any year before the test.

    Raises Error if there are fewer test series than tasks.
    """
    logs, years = splits[split]
    if split == "test":
        if tasks.stop > len(logs):
            raise fmaml.Error(f"data: there are {len(logs)} test series; give eval.tasks={len(logs)} or fewer")
        which = torch.arange(tasks.start, tasks.stop, device=device)
        later = torch.zeros_like(which)
    else:
        u = uniform(fold(task_keys(seed, split, step, tasks, device)[:, None], torch.arange(2, device=device)))
        which = (len(logs) * u[:, 0]).long()
        ends = years[which] - window.years - window.tested + 1
        later = window.tested + (ends * u[:, 1]).long()
    first = logs.shape[1] - later - window.years
    at = first[:, None] + torch.arange(window.years, device=device)
    return windows(logs[which[:, None], at], window)


def windows(logs: Tensor, window: Window) -> fmaml.Task:
    """The examples of stacked series, logarithms [tasks, window.years]."""
    changes = logs.diff(dim=1)
    unit = changes[:, : window.first_query].abs().mean(1, keepdim=True).clamp(min=LEAST_CHANGE)  # [tasks, 1]
    lags = changes.unfold(1, window.lags, 1) / unit[..., None]  # [tasks, origins from ``lags`` on, lags]
    ahead = torch.arange(1, window.horizons + 1, device=logs.device)

    def batch(first: int, count: int) -> fmaml.Batch:
        origins = torch.arange(first, first + count, device=logs.device)
        known = lags[:, origins - window.lags]
        x = torch.cat([known, unit.log()[..., None].expand(-1, count, 1)], -1)
        y = (logs[:, origins[:, None] + ahead] - logs[:, origins, None]) / unit[..., None]
        return fmaml.Batch(x.float(), y.float())

    return fmaml.Task(batch(window.lags, window.shots), batch(window.first_query, window.queries))
