"""Rows of JSON in a file to which several processes append."""

import json
import os
from pathlib import Path
from typing import Any


class Rows:
    """Each row is safely in the file when `add` returns, even if the process is killed."""

    def __init__(self, path: Path, part: str) -> None:
        self.path = path
        self.part = part

    def add(self, case: str, **found: Any) -> None:
        line = json.dumps({"part": self.part, "case": case, **found}) + "\n"
        with self.path.open("a", encoding="utf-8") as file:  # a single write of a short line is atomic
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def found(self, part: str) -> list[dict[str, Any]]:
        """The rows of a part that ran before."""
        rows = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []
        return [row for row in rows if row["part"] == part]
