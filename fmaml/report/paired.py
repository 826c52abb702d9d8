"""The mean difference of two runs' scores on the same test tasks, with its interval."""

import math
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..config.validate import section_settings
from ..intervals import t95
from ..setting_types import FreeOnResume, KeepsTestTasks

LEAST_WITHOUT_SPREAD = 6  # equal differences, from which on chance makes them of one sign in fewer than 5 % of cases


class Paired(NamedTuple):
    """The difference of two runs' scores over their common test tasks."""

    tasks: int
    mean: float  # of the second run's score minus the first's
    ci95: float | None  # half the width of the 95 % interval; None for fewer than two tasks

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 0. Equal differences of a few tasks have no spread, and prove nothing."""
        if self.ci95 is None or (self.ci95 == 0 and self.tasks < LEAST_WITHOUT_SPREAD):
            return False
        return abs(self.mean) > self.ci95


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> Paired | None:
    """The difference second - first over the common tasks; None if there are none, or a score is not finite.

    The interval is Student's t-interval of the differences. A task's difficulty affects both runs, so it cancels.

    >>> paired_difference({0: 0.5, 1: 0.7}, {0: 0.6, 1: 0.9})
    Paired(tasks=2, mean=0.15000000000000002, ci95=0.6353102368000005)
    """
    differences = [second[task] - first[task] for task in first if task in second]
    if not differences or not all(map(math.isfinite, differences)):
        return None
    tasks, mean = len(differences), statistics.fmean(differences)
    return Paired(tasks, mean, t95(tasks - 1) * statistics.stdev(differences) / math.sqrt(tasks) if tasks > 1 else None)


def why_other_tasks(first: dict[str, Any], second: dict[str, Any]) -> str:
    """The reasons why the test tasks of two runs differ, or "" if they are the same.

    ``first`` and ``second`` are the facts from `fmaml.report.read_run.scores_of_tasks`.
    """
    if not first or not second:
        return "no scores of single tasks were saved"
    reasons = [f"{key} differs" for key in ("seed",) if first.get(key) != second.get(key)]
    if _test_digest(first) != _test_digest(second):
        reasons.append("the test data differ")
    one, two = (_of_tasks(facts) for facts in (first, second))
    reasons += [f"data.{key} differs" for key in sorted({*one, *two}) if one.get(key) != two.get(key)]
    return ", ".join(reasons)


def _test_digest(facts: dict[str, Any]) -> Any:
    data = facts.get("data")
    return data.get("test") if isinstance(data, dict) else None


def _of_tasks(facts: dict[str, Any]) -> dict[str, Any]:
    """The settings of data that test tasks depend on, without those that a known digest covers.

    The marks of these are in the source's signature: they do not change test tasks, or only tell where files are.
    """
    config = facts.get("config")
    settings: dict[str, Any] = config if isinstance(config, dict) else {}
    if _test_digest(facts) is None:
        return settings
    declared = section_settings("data", settings) or {}
    covered = {key for key, setting in declared.items() if setting.marks & {KeepsTestTasks, FreeOnResume}}
    return {key: value for key, value in settings.items() if key not in covered}
