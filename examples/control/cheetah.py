"""A planar cheetah that runs forward or backward, after the half-cheetah of MAML (arXiv 1703.03400, section 5.3)."""

from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from fmaml.data import Source
from fmaml.rng import uniform
from fmaml.setting_types import KeepsTestTasks, Size, Unit, gives

from .body import CHEETAH
from .pictures import save_runs
from .rollouts import with_goal
from .tasks import Acting, policy_source


@gives("numbers", "own_loss")
def cheetah(
    *,
    seed: int,
    device: torch.device,
    episodes: Size = 20,
    horizon: Size = 100,
    discount: Annotated[Unit, KeepsTestTasks] = 0.99,
    gae_lambda: Annotated[Unit, KeepsTestTasks] = 1.0,
    dice_lambda: Annotated[Unit, KeepsTestTasks] = 1.0,
    told: Annotated[bool, KeepsTestTasks] = False,
) -> Source:
    """A cheetah runs forward or backward, with equal probability. The reward is the speed in that direction.

    Returns a source of tasks. Their examples are the steps of ``episodes`` episodes, each of ``horizon`` steps of
    0.05 s. Support x float32 [tasks, episodes * horizon, 4] is the noise of the actions. y float32 [tasks, episodes *
    horizon, 1] is the direction, 1 or -1, which the policy does not see. The query set has the same shapes.

    The policy sees the state of the body, 13 numbers, and returns the torques on its four joints. An episode begins at
    rest in the stance, and never ends early. The body, in `body.py`, is symmetric, and each of its two legs has
    two links; the half-cheetah of MuJoCo also has feet.

    The loss is that of policy gradients, with ``discount``, ``gae_lambda`` and ``dice_lambda`` as in `navigation`. With
    ``told``, the policy also sees the direction, the last of 14 numbers, and need not adapt: an oracle policy.

    Finn, Abbeel and Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017, section
    5.3.
    """
    about = {
        "data": "cheetah",
        "task": f"cheetah, {episodes} episodes",
        "protocol": "a planar cheetah forward or backward, "
        f"{episodes} support and {episodes} query episodes of {horizon} steps{', the direction told' * told}",
    }
    environment = with_goal(CHEETAH) if told else CHEETAH
    acting = Acting(episodes, horizon, discount, gae_lambda, dice_lambda)
    show = partial(save_runs, environment, horizon)
    return policy_source(
        environment, _direction, acting, seed, device, states=13 + told, actions=4, about=about, show=show
    )


def _direction(keys: Tensor) -> Tensor:
    """Draw directions, 1 or -1, float32 [tasks, 1]."""
    return torch.where(uniform(keys) < 0.5, -1.0, 1.0)[:, None]
