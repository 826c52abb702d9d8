"""Metadata for parameters of runs that wrote none: from the run's other files and the data, which must be there."""

import json
from pathlib import Path
from typing import Any

import torch

from ..config.load import load_config
from ..data.source import SPLITS, Source
from ..errors import UserError
from ..run.build import call_by_name
from ..run.store.model_file import Metadata
from ..run.store.model_metadata import describe
from ..run.store.resume_compatibility import digest_of_split


def metadata_of_old_run(path: Path) -> Metadata:
    """The metadata of the model in a run's folder, from its config.yaml; UserError without one."""
    config_file = path.parent / "config.yaml"
    if not config_file.is_file():
        raise UserError(f"{path}: parameters without metadata, and no config.yaml beside them; leave them in their run")
    config = load_config(str(config_file))
    device = torch.device("cpu")
    source: Source = call_by_name("data", config["data"], seed=config["seed"], device=device)
    data = {split: digest_of_split(source, split) for split in SPLITS}
    metadata = describe(config, source, data, read_json(path.parent / "environment.json"))
    found = read_json(path.parent / "results.json")
    if found and path.name == "best.safetensors":
        columns = {label: [[row["mean"], row["ci95"]] for row in column] for label, column in found["results"].items()}
        metadata |= {"results": columns, "tasks": found["tasks"], "training_seconds": found["training_seconds"]}
    return metadata


def read_json(path: Path) -> dict[str, Any]:
    """The content of a file of a run, or nothing if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
