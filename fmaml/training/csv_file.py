"""metrics.csv: the rows of a run for a spreadsheet."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLUMNS = (
    *("kind", "step", "seconds", "query_loss", "before", "after", "tasks_per_second"),
    *("result", "score", "ci95", "why"),
)


class CsvFile:
    """Writes metrics.csv in the run's folder; what a row lacks is an empty cell."""

    def __init__(self, folder: Path, _: Any) -> None:
        self.file = (folder / "metrics.csv").open("w", encoding="utf-8", newline="")
        self.rows = csv.DictWriter(self.file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        self.rows.writeheader()

    def write(self, row: Mapping[str, Any], when: float) -> None:
        self.rows.writerow(dict(row))
        self.file.flush()

    def close(self) -> None:
        self.file.close()
