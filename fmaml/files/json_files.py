"""JSON files with null for NaN."""

import json
import math
from pathlib import Path
from typing import Any

from .atomic import write_text_durably


def nan_to_null(tree: Any) -> Any:
    """Replace NaN and infinity in dicts and lists by None. JSON lacks them, and a diverging run may log them."""
    if isinstance(tree, dict):
        return {key: nan_to_null(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [nan_to_null(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def write_json_durably(path: Path, content: Any) -> None:
    """Write the content as JSON, atomically, with null for NaN and infinity."""
    text = json.dumps(nan_to_null(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_text_durably(path, text + "\n")
