"""A planar cheetah that learns to run forward or backward, after the half-cheetah of MAML (arXiv 1703.03400, 5.3)."""

from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from ...losses import Apply
from ...pickling import picklable
from ...ranges import CostsMemory, Size, Unit
from ...rl.cheetah import CHEETAH
from ...rl.rollouts import noise_and_goal, rollouts
from ...rng import uniform
from ...types import Params, Task
from ..acting import Rates, acting, tasks_of_goals
from ..source import Source


@picklable
def cheetah(
    *,
    seed: int,
    device: torch.device,
    episodes: Annotated[Size, CostsMemory] = 20,
    horizon: Annotated[Size, CostsMemory] = 200,
    discount: Unit = 0.99,
    gae_lambda: Unit = 1.0,
    dice_lambda: Unit = 1.0,
) -> Source:
    """."""
    sample = tasks_of_goals(_direction, episodes * horizon, 4, seed=seed, device=device)
    about = {
        "data": "cheetah",
        "task": f"cheetah, {episodes} episodes",
        "protocol": f"planar cheetah, forward or backward, {episodes} support and {episodes} query episodes of {horizon} steps",
    }
    return acting(
        CHEETAH,
        sample,
        horizon,
        Rates(discount, gae_lambda, dice_lambda),
        states=13,
        actions=4,
        about=about,
        show=partial(_save_runs, horizon),
    )


def _direction(keys: Tensor) -> Tensor:
    """1 or -1, as likely, float32 [tasks, 1]."""
    return (1 - 2 * (uniform(keys) < 0.5).float())[:, None]


def _save_runs(horizon: int, folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
    pass
