"""The facts that must stay the same when a run is resumed, and those that may change.

Settings that may change are marked `fmaml.setting_types.FreeOnResume` in their declaration.
"""

from pathlib import Path

import torch
from torch import Tensor

from .. import __version__, distributed
from ..config.config_diff import differing, setting_text
from ..config.settings import Config, TrainSettings
from ..config.validate import marked_settings
from ..data.source import SPLITS, Source
from ..errors import Error, Notify
from ..files.digests import sha256_of
from ..native.compiled_kernels import kernels_in_use
from ..processes.environment import hardware
from ..setting_types import FreeOnResume
from ..tree import leaves
from .checkpoint_format import Facts
from .progress import BITS_MAY_DIFFER

ABSENT = "nothing"  # in messages, for a missing setting
MACHINE = "machine."
CHOOSES_THE_DATA = ("config.data.", "config.seed")
PROBE_TASKS = 4  # of each split; their digest reveals a changed sampler


def collect_facts(config: Config, source: Source, device: torch.device) -> Facts:
    """The facts about the run in a checkpoint, besides its progress."""
    return {
        "config": config,
        "algorithm": config["algorithm"]["name"],
        "seed": config["seed"],
        "data": {split: digest_of_split(source, split) for split in SPLITS},
        "versions": {"fmaml": __version__, "torch": str(torch.__version__)},
        "machine": {
            "device": str(device),
            "processes": distributed.world_size(),
            "threads": torch.get_num_threads(),
            "hardware": hardware(device),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),  # torch's vector instructions
            "kernels": kernels_in_use(),
        },
    }


def digest_of_split(source: Source, split: str) -> str:
    """SHA-256 of the split's data, and of its first tasks, which depend on the sampler."""
    parts: list[str | Tensor] = []
    for leaf in leaves(((source.data or {}).get(split), source.sample(split, 0, range(PROBE_TASKS)))):
        parts += [f"{tuple(leaf.shape)} {leaf.dtype}", leaf] if isinstance(leaf, Tensor) else [f"{leaf}"]
    return sha256_of(*parts)


def check_compatible(folder: Path, saved: Facts, current: Facts, notify: Notify) -> None:
    """Raise Error, with every difference, unless the run may continue from a checkpoint with the facts ``saved``.

    ``notify`` receives differences between machines, which are allowed but change rounding.
    """
    differences = {
        key: (was, now)
        for key, (was, now) in differing([saved, current], ABSENT).items()
        if now != ABSENT or key.startswith("config.")  # the saved progress is not among this run's facts
    }
    forbidden = [key for key in differences if not _may_change(key, saved, current)]
    if any(key.startswith(CHOOSES_THE_DATA) for key in forbidden):  # these settings explain the other data
        forbidden = [key for key in forbidden if not key.startswith("data.")]
    if forbidden:
        texts = {key: [*map(setting_text, differences[key])] for key in forbidden}
        lines = [
            f"{folder}: {key.removeprefix('config.')}: saved with {was}, given {now}"
            for key, (was, now) in texts.items()
        ]
        free = ", ".join(sorted(marked_settings(current["config"], FreeOnResume)))
        may_change = f"these may change: train.meta_steps (if train.schedule is constant), the device, {free}"
        cure = f"{folder}: resume with the saved settings, or start in a new --out; {may_change}"
        raise Error(*dict.fromkeys(lines), cure)  # without repeats: the seed is in two facts
    for key, (was, now) in differences.items():
        train = TrainSettings(**current["config"]["train"])
        if key == f"{MACHINE}processes" and train.meta_batch_for == "each":
            tasks = [train.tasks_of(int(count)) for count in (was, now)]
            notify(f"{key} was {was} and is {now}: a meta-step has {tasks[1]} tasks from now on, and had {tasks[0]}")
        elif key.startswith(MACHINE):
            notify(f"{key} was {was} and is {now}: {BITS_MAY_DIFFER}")


def _may_change(key: str, saved: Facts, current: Facts) -> bool:
    train = current["config"]["train"]
    key = key.removeprefix("config.")
    if key == "train.meta_steps":
        return train["schedule"] == "constant" and train["meta_steps"] >= saved["step"]
    return key in marked_settings(current["config"], FreeOnResume) or key.startswith(MACHINE)
