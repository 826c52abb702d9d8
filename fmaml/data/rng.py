"""One random key for each task, by seed, split, step and task number."""

import torch
from torch import Tensor

from ..rng import fold, signed

SPLITS = {"train": 0, "val": 1, "test": 2}  # split -> its counter. Never renumber: it would change every task drawn


def task_keys(seed: int, split: str, step: int | Tensor, tasks: range, device: torch.device) -> Tensor:
    """One key per task, int64 [tasks], on ``device``: each a function of (seed, split, step, task number) alone.

    ``split`` is "train", "val" or "test" (KeyError otherwise), ``tasks`` the range of task numbers.

    >>> import torch, fmaml
    >>> keys = fmaml.data.task_keys(0, "train", 1, range(16), torch.device("cpu"))
    >>> bool((keys[3:5] == fmaml.data.task_keys(0, "train", 1, range(3, 5), torch.device("cpu"))).all())
    True
    """
    counters = torch.arange(tasks.start, tasks.stop, tasks.step, device=device)
    return fold(fold(fold(signed(seed), SPLITS[split]), step), counters)
