"""Metadata for parameters of runs that wrote none: from the run's config and the data, which must be there."""

from pathlib import Path

import torch

from ..config.load import load as load_config
from ..data.source import Source
from ..errors import UserError
from ..run.build import call_by_name
from ..run.store.model_file import Metadata
from ..run.store.model_metadata import describe


def metadata_of_old_run(path: Path) -> Metadata:
    """The metadata of the model in a run's folder, from its config.yaml; UserError without one."""
    config_file = path.parent / "config.yaml"
    if not config_file.is_file():
        raise UserError(f"{path}: parameters without metadata, and no config.yaml beside them; leave them in their run")
    config = load_config(str(config_file))
    device = torch.device("cpu")
    source: Source = call_by_name("data", config["data"], seed=config["seed"], device=device)
    return describe(config, source, {}, device)
