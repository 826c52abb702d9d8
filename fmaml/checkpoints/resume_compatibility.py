"""The facts that must stay the same when a run is resumed, and those that may change.

A setting that may change is marked `fmaml.setting_types.FreeOnResume` where it is declared.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import __version__, distributed
from ..config.config_diff import flattened, setting_text
from ..config.settings import Config, TrainSettings
from ..config.validate import marked_settings
from ..data.source import SPLITS, Source
from ..errors import Error, Notify
from ..files.digests import sha256_of
from ..processes.environment import hardware
from ..setting_types import FreeOnResume
from ..tree import leaves
from .checkpoint_format import Facts
from .progress import BITS_MAY_DIFFER

ABSENT = "nothing"  # in messages, for a setting that one side lacks
MACHINE = "machine."
CHOOSES_THE_DATA = ("config.data.", "config.seed")
PROBE_TASKS = 4  # of each split; their digest shows a change of the sampler


class Difference(NamedTuple):
    """A fact that the checkpoint and the run do not agree on."""

    key: str  # dotted
    saved: Any
    current: Any


def collect_facts(config: Config, source: Source, device: torch.device) -> Facts:
    """What a checkpoint records of the run besides its progress."""
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
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),  # the vector instructions that torch uses
        },
    }


def digest_of_split(source: Source, split: str) -> str:
    """SHA-256 of all the data that the split's tasks are drawn from, and of its first tasks, which show the sampler."""
    parts: list[str | Tensor] = []
    for leaf in leaves(((source.data or {}).get(split), source.sample(split, 0, range(PROBE_TASKS)))):
        parts += [f"{tuple(leaf.shape)} {leaf.dtype}", leaf] if isinstance(leaf, Tensor) else [f"{leaf}"]
    return sha256_of(*parts)


def check_compatible(folder: Path, saved: Facts, current: Facts, notify: Notify) -> None:
    """Raise Error, naming every difference, unless the run may continue from a checkpoint with the facts ``saved``.

    ``notify`` is told of differences between machines, which are allowed but change rounding.
    """
    differences = _differences(saved, current)
    forbidden = [difference for difference in differences if not _may_change(difference, saved, current)]
    if any(difference.key.startswith(CHOOSES_THE_DATA) for difference in forbidden):  # so other data are no surprise
        forbidden = [difference for difference in forbidden if not difference.key.startswith("data.")]
    if forbidden:
        raise Error(_refusal(folder, forbidden, current["config"]))
    for difference in differences:
        if difference.key.startswith(MACHINE):
            notify(_describe_other_machine(difference, TrainSettings(**current["config"]["train"])))


def _refusal(folder: Path, forbidden: list[Difference], config: Config) -> str:
    """A line for each setting that may not change, and the cure."""
    lines = [
        f"{folder}: {key.removeprefix('config.')}: saved with {setting_text(was)}, given {setting_text(now)}"
        for key, was, now in forbidden
    ]
    free = ", ".join(sorted(marked_settings(config, FreeOnResume)))
    may_change = f"what may change: train.meta_steps (if train.schedule is constant), the device, {free}"
    cure = f"{folder}: resume with the saved settings, or start in a new --out; {may_change}"
    return "\n".join([*dict.fromkeys(lines), cure])  # the seed is a fact of its own too


def _describe_other_machine(difference: Difference, train: TrainSettings) -> str:
    """The consequence of a difference between the machines: of the number of tasks, or of rounding alone."""
    key, was, now = difference
    if key == f"{MACHINE}processes" and train.meta_batch_for == "each":
        before, after = train.tasks_of(int(was)), train.tasks_of(int(now))
        return f"{key} was {was} and is {now}: a meta-step has {after} tasks from now on, and had {before}"
    return f"{key} was {was} and is {now}: {BITS_MAY_DIFFER}"


def _may_change(difference: Difference, saved: Facts, current: Facts) -> bool:
    config = current["config"]
    key = difference.key.removeprefix("config.")
    if key == "train.meta_steps":
        return config["train"]["schedule"] == "constant" and difference.current >= saved["step"]
    return key in marked_settings(config, FreeOnResume) or key.startswith(MACHINE)


def _differences(saved: Facts, current: Facts) -> list[Difference]:
    """The facts of the run, and the settings of either config, in which the two differ."""
    was, now = flattened(saved), flattened(current)
    keys = [key for key in was | now if key in now or key.startswith("config.")]
    compared = [Difference(key, was.get(key, ABSENT), now.get(key, ABSENT)) for key in keys]
    return [difference for difference in compared if difference.saved != difference.current]
