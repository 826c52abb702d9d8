"""The rows of a run in Weights & Biases."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.settings import Config
from ..errors import note

INIT_LIMIT_S = 30.0
FINISH_LIMIT_S = 60.0
PROJECT = "fmaml"  # unless WANDB_PROJECT says another


class WeightsAndBiases:
    """A run of W&B, with FOLDER/wandb for its files.

    Its history can be added to, but not rewound, and not at all where it is written offline. So a resumed run is a new
    one of W&B, with all the rows, in one group with the earlier ones. Where the service cannot be reached, the run is
    written offline, for `wandb sync`; nobody is asked for a key.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        import wandb  # takes more than a second, so only where it is wanted

        self.folder = folder
        self.known: set[str] = set()  # kinds of rows
        quiet = wandb.Settings(silent=True, console="off", init_timeout=INIT_LIMIT_S)
        wandb.setup(quiet)
        about: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT") or PROJECT,
            "dir": folder,
            "name": f"{config['name']} {folder.name}",
            "group": folder.name,
            "config": config,
            "settings": quiet,
        }
        try:
            self.run = wandb.init(**about)
        except wandb.Error as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            note(f"train.log_to: wandb: {reason}; written offline; `wandb sync` sends {folder / 'wandb'}")
            self.run = wandb.init(**about, mode="offline")

    def write(self, row: Mapping[str, Any], when: float) -> None:
        kind = row["kind"]
        if kind not in self.known:  # each kind has steps of its own
            self.known.add(kind)
            self.run.define_metric(f"{kind}/step")
            self.run.define_metric(f"{kind}/*", step_metric=f"{kind}/step")
        name = f"{kind}/{row['result']}" if "result" in row else kind
        numbers = {f"{name}/{key}": value for key, value in row.items() if isinstance(value, float)}
        self.run.log({f"{kind}/step": row["step"], **numbers})

    def close(self) -> None:
        """Wait until everything is sent, but no longer than a minute."""
        errors: list[Exception] = []

        def finish() -> None:
            try:
                self.run.finish()
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=finish, daemon=True)
        thread.start()
        thread.join(FINISH_LIMIT_S)
        if errors:
            raise errors[0]
        if thread.is_alive():
            raise TimeoutError(f"not all was sent in {FINISH_LIMIT_S:g} s; `wandb sync` sends {self.folder / 'wandb'}")
