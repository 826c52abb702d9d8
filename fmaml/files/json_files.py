"""JSON files, which hold no NaN."""

import json
import math
from pathlib import Path
from typing import Any

from .atomic import write_text_durably


def nan_to_null(tree: Any) -> Any:
    """The tree of dicts and lists with None for NaN and infinity, which JSON lacks and a diverging run may log."""
    if isinstance(tree, dict):
        return {key: nan_to_null(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [nan_to_null(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def write_json_durably(path: Path, content: Any) -> None:
    """Write the content as JSON, whole or not at all, with null for NaN and infinity."""
    text = json.dumps(nan_to_null(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_text_durably(path, text + "\n")
