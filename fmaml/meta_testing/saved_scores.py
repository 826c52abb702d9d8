"""Save the scores of meta-testing as they are computed, so that an interrupted test continues."""

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.folder_watch import CheckFolder
from ..files.atomic import write_text_durably
from ..files.digests import sha256_of
from ..files.json_files import nan_to_null
from ..files.schema import ScoresRow
from ..tree import leaves
from ..types import Theta


class SavedScores:
    """A file of JSON lines: the facts that the scores depend on, then a row for each range of tasks.

    A file from another test is replaced. Incomplete rows are dropped.
    """

    def __init__(self, path: Path, facts: dict[str, Any], check_folder: CheckFolder = lambda: None) -> None:
        """``facts`` are JSON values that the scores depend on; ``check_folder`` is called before each write."""
        self.path = path
        self.check_folder = check_folder
        self.rows: dict[tuple[str, int, int], list[list[float | None]]] = {}
        head = json.dumps(facts, sort_keys=True)
        check_folder()
        first, *lines = (path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "").split("\n")
        kept = [head]
        for line in lines if first == head else []:
            with contextlib.suppress(ValueError, RecursionError):
                row = ScoresRow.checked(json.loads(line))
                self.rows[row.column, row.first, row.end] = row.scores
                kept.append(line)
        write_text_durably(path, "\n".join(kept) + "\n")

    def find(self, column: str, tasks: range) -> Tensor | None:
        """The scores [tasks, steps + 1] of a range of tasks, or None if it was not tested."""
        found = self.rows.get((column, tasks.start, tasks.stop))
        if found is None:
            return None
        return torch.tensor([[float("nan") if score is None else score for score in row] for row in found])

    def add(self, column: str, tasks: range, scores: Tensor) -> None:
        """Write the scores [tasks, steps + 1] of a range of tasks."""
        row = {"column": column, "first": tasks.start, "end": tasks.stop, "scores": nan_to_null(scores.tolist())}
        self.check_folder()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def digest_of_theta(theta: Theta) -> str:
    """SHA-256 of the values of a tree, in the order of its leaves."""
    return sha256_of(*leaves(theta))
