"""A planar cheetah that runs forward or backward, after the half-cheetah of MAML (arXiv 1703.03400, section 5.3)."""

from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from ...losses import Apply
from ...pickling import picklable
from ...rl.cheetah import CHEETAH, RODS, STEP, outline
from ...rl.rollouts import Environment, noise_and_goal, rollouts
from ...rl.told import told as with_goal
from ...rng import uniform
from ...setting_types import CostsMemory, Size, Unit
from ...types import Params, Task
from ..acting import Discounting, acting, tasks_of_goals
from ..source import Source


@picklable
def cheetah(
    *,
    seed: int,
    device: torch.device,
    episodes: Annotated[Size, CostsMemory] = 20,
    horizon: Annotated[Size, CostsMemory] = 100,
    discount: Unit = 0.99,
    gae_lambda: Unit = 1.0,
    dice_lambda: Unit = 1.0,
    told: bool = False,
) -> Source:
    """Running forward or backward, each as likely, which the rewards tell: the speed in that direction.

    Returns a source of tasks whose examples are the steps of ``episodes`` episodes of ``horizon`` steps of 0.05 s:
    support x float32 [tasks, episodes * horizon, 4], the noise of the actions, and y float32 [tasks, the same, 1], the
    direction, 1 or -1, which the policy does not see; the query set the same. The policy sees the state of the body,
    13 numbers, and acts by the torques on its four joints; an episode begins in the stance, at rest, and never ends
    early. The body, `fmaml.rl.cheetah`, has two legs of two links where the half-cheetah of MuJoCo's has feet besides,
    and is symmetric.

    The loss is that of policy gradients, with ``discount``, ``gae_lambda`` and ``dice_lambda`` as in `navigation`. With
    ``told`` the policy sees the direction as well, the last of 14 numbers, and has nothing to adapt to: an oracle.

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
    return acting(
        environment,
        tasks_of_goals(_direction, episodes * horizon, 4, seed=seed, device=device),
        horizon,
        Discounting(discount, gae_lambda, dice_lambda),
        states=13 + told,
        actions=4,
        about=about,
        show=partial(_save_runs, environment, horizon),
    )


def _direction(keys: Tensor) -> Tensor:
    """1 or -1, float32 [tasks, 1]."""
    return torch.where(uniform(keys) < 0.5, -1.0, 1.0)[:, None]


def _save_runs(
    environment: Environment, horizon: int, folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply
) -> None:
    """Write cheetah.png: an episode of the first task of each direction, before adaptation and after inner steps."""
    from ..motion_pictures import runs_figure  # imported here because matplotlib takes half a second
    from ..pictures import save_figure

    def motion(params: Params, task: Task) -> Tensor:
        """Where the ends of the rods are, step by step: [horizon, 6, 2]."""
        noise, direction = noise_and_goal(task.query, horizon)
        seen = rollouts(apply, params, environment, noise[:1], direction[:1])
        far = STEP * direction[0, 0] * (seen.rewards[0].cumsum(0) - seen.rewards[0])
        return outline(seen.states[0]) + torch.stack([far, torch.zeros_like(far)], -1)[:, None]

    first = {float(task.query.y[0, 0]): number for number, task in reversed(list(enumerate(tasks)))}
    names = {"backward": first.get(-1.0), "forward": first.get(1.0)}
    motions = {name: [motion(phi, tasks[i]) for phi in phis[i]] for name, i in names.items() if i is not None}
    save_figure(runs_figure(motions, RODS, STEP), folder / "cheetah.png")
