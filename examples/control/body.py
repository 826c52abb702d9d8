"""A cheetah in the plane that runs forward or backward, after the half-cheetah of arXiv 1703.03400, section 5.3.

The body is a torso and two legs of two links. These are rods at angles theta to the ground. Units are metres, seconds
and kilograms.

Each point p of a rod is at r + sum_j C_pj (cos theta_j, sin theta_j). Here r is the middle of the torso, and C is
constant. The velocities are u = (r', theta'). Points move at J u, with the accelerations
J u' - C (cos theta, sin theta) theta'^2. D'Alembert's principle gives the equations of motion:

    J^T m (J u' - C (cos theta, sin theta) theta'^2) = J^T f + S^T tau.

A rod has exactly the inertia of three masses: a sixth of its mass at each end, and the rest in the middle. The forces f
on a point are:

- Its weight.
- At a depth d below the ground, N = k d (1 - c v_z) upward, but at least 0.
- The friction -mu N v_x / sqrt(v_x^2 + v_0^2).

The joints are at the angles S theta. Their torques tau come from a motor, a spring to the stance and a damper. The body
is its own mirror image, so both directions are equally hard.

Time integration is linearly implicit Euler: terms linear in u use the new u, so stiff contacts are stable. Each step is
repeated with the forces N at its end, set to 0 where they would pull. The last repetition takes the friction at its
end, limited to mu N.
"""

import math
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from .rollouts import Environment

STEP, SUBSTEPS = 0.05, 3  # seconds per action, and Euler steps per action
GRAVITY = 9.81  # m / s^2
TORQUE, SPRING, DAMPER = 50.0, 50.0, 2.0  # of a joint: N m at the action 1, N m / rad, N m s / rad
STIFFNESS, DISSIPATION = 5000.0, 2.0  # of the ground: k in N / m, c in s / m
FRICTION, SLIP = 1.0, 0.1  # mu, and v_0 in m / s
SPIN = 10.0  # rad / s, the unit of theta' in a state, so that all numbers of a state are of similar size

F64 = torch.float64
RODS = ((0, 1), (0, 2), (2, 3), (1, 4), (4, 5))  # torso, back thigh and shin, front thigh and shin: (point, point)
MASSES = torch.tensor([6.0, 1.5, 1.0, 1.5, 1.0], dtype=F64)
_BENT, _DOWN = torch.tensor([[0, 0.5, -0.5, -0.5, 0.5], [0, 1, 1, 1, 1]], dtype=F64)
STANCE = _BENT - math.pi / 2 * _DOWN
ENDS = torch.tensor(  # of the torso, then back knee and foot, front knee and foot
    [[-5, 0, 0, 0, 0], [5, 0, 0, 0, 0], [-5, 3, 0, 0, 0], [-5, 3, 3, 0, 0], [5, 0, 0, 3, 0], [5, 0, 0, 3, 3]], dtype=F64
).div(10)
JOINTS = torch.tensor([[-1, 1, 0, 0, 0], [0, -1, 1, 0, 0], [-1, 0, 0, 1, 0], [0, 0, 0, -1, 1]], dtype=F64)  # S
HEIGHT = -float((ENDS @ STANCE.sin()).min())  # the torso's, in the stance
_ENDS_OF = one_hot(torch.tensor(RODS), len(ENDS)).sum(1).to(F64)  # [rods, ends]
POINTS = torch.cat([ENDS, _ENDS_OF @ ENDS / 2])  # C: [points, rods]
INERTIA = torch.cat([MASSES @ _ENDS_OF / 6, MASSES * 4 / 6])  # m: [points]
_LEVERS = pad(POINTS, (2, 0), value=1.0)  # J without cosines and sines: [points, 7]
_HINGES = pad(JOINTS, (2, 0))  # S for u: [joints, 7]
_NUMBERS: list[tuple[list[float], torch.Size]] = [
    (cast(Any, x.flatten()).tolist(), x.shape) for x in (INERTIA, STANCE, _LEVERS, _HINGES)
]


class Body(NamedTuple):
    """The constants of the equations of motion, float64, on a device."""

    inertia: Tensor
    stance: Tensor
    levers: Tensor
    hinges: Tensor


def body_on(device: torch.device) -> Body:
    """Make the constants on a device, filled number by number: a copy would wait for the GPU."""
    filled = ([torch.full((), x, dtype=F64, device=device) for x in numbers] for numbers, _ in _NUMBERS)
    return Body(*(torch.stack(numbers).view(shape) for numbers, (_, shape) in zip(filled, _NUMBERS, strict=True)))


def velocities(body: Body, height: Tensor, turned: Tensor, u: Tensor, action: Tensor, dt: float | Tensor) -> Tensor:
    """Compute u [.., 7] after dt. The torso's height [..] and the rods' angles [.., 5] are relative to the stance."""
    m, stance, levers, hinges = (x.to(u.dtype) for x in body)
    pairs = (levers[:, :, None] * levers[:, None]).flatten(1)  # [points, 49]
    cos, sin = (turned + stance).cos(), (turned + stance).sin()
    one, zero = torch.ones_like(u[..., :1]), torch.zeros_like(u[..., :1])
    s = torch.stack([torch.cat([one, zero, -sin], -1), torch.cat([zero, one, cos], -1)], -2)  # J is s times levers
    v = (s * u[..., None, :]) @ levers.mT  # [.., 2, points]
    inward = (torch.stack([cos, sin], -2) * u[..., None, 2:].square()) @ levers[:, 2:].mT
    drag, lift = ground(height[..., None] + HEIGHT + sin @ levers[:, 2:].mT, v[..., 0, :], v[..., 1, :], dt)
    torque = TORQUE * action.clamp(-1, 1) - SPRING * turned @ hinges[:, 2:].mT
    outer = (s[..., :, None] * s[..., None, :]).flatten(-2)  # [.., 2, 49]

    def after(drag: Tensor, push: Tensor, lift: Tensor) -> Tensor:
        force = m * inward + torch.stack([push, lift - GRAVITY * m], -2)
        impulse = (s * ((m * v + dt * force) @ levers)).sum(-2) + dt * torque @ hinges
        mass = (outer * ((m + dt * drag) @ pairs)).sum(-2).reshape(*u.shape, 7)
        mass = mass + (dt * DAMPER + dt * dt * SPRING) * hinges.mT @ hinges
        return cast(Any, torch.linalg).solve_ex(mass, impulse)[0]

    none = torch.zeros_like(lift)
    rising = (s[..., 1, :] * after(drag, none, lift)) @ levers.mT
    normal = (lift - drag[..., 1, :] * rising).clamp(min=0)
    limit = FRICTION * normal
    rubbing = limit / (v[..., 0, :].square() + SLIP**2).sqrt()
    sliding = (s[..., 0, :] * after(torch.stack([rubbing, none], -2), none, normal)) @ levers.mT
    friction = (-rubbing * sliding).clamp(-limit, limit)
    return after(torch.zeros_like(drag), friction, normal)


def ground(z: Tensor, v_x: Tensor, v_z: Tensor, dt: float | Tensor) -> tuple[Tensor, Tensor]:
    """Ground contact of points at height z: drag [.., 2, points], lift [.., points]; force = lift upward - drag v."""
    pressed = STIFFNESS * (-z).clamp(min=0) * (DISSIPATION * v_z < 1)
    friction = FRICTION * pressed * (1 - DISSIPATION * v_z) / (v_x.square() + SLIP**2).sqrt()
    yielding = DISSIPATION * pressed + dt * STIFFNESS * (pressed > 0)
    return torch.stack([friction, yielding], -2), pressed


def stand(direction: Tensor) -> Tensor:
    """Start in the stance at rest, a state [n, 13] of zeros: the torso's height, the rods' angles, the velocities."""
    return direction.new_zeros(*direction.shape[:-1], 13)


def run_on(state: Tensor, action: Tensor, direction: Tensor, body: Body | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Act for one step. The reward is the torso's mean speed in m / s in the direction [n, 1], 1 or -1."""
    height, turned, u = state[..., 0], state[..., 1:6], torch.cat([state[..., 6:8], SPIN * state[..., 8:]], -1)
    body = body or body_on(state.device)
    distance, dt = torch.zeros_like(height), STEP / SUBSTEPS
    for _ in range(SUBSTEPS):
        u = velocities(body, height, turned, u, action, dt)
        height, turned, distance = height + dt * u[..., 1], turned + dt * u[..., 2:], distance + dt * u[..., 0]
    state = torch.cat([height[..., None], turned, u[..., :2], u[..., 2:] / SPIN], -1)
    return state, distance / STEP * direction[..., 0], torch.zeros_like(height, dtype=torch.bool)


def outline(state: Tensor) -> Tensor:
    """The positions of the rods' ends, relative to the ground below the torso's middle: [.., 6, 2]."""
    ends, angles = ENDS.to(state), state[..., 1:6] + STANCE.to(state)
    above = torch.stack([torch.zeros_like(state[..., 0]), state[..., 0] + HEIGHT], -1)
    return ends @ torch.stack([angles.cos(), angles.sin()], -1) + above[..., None, :]


def prepared(direction: Tensor) -> Environment:
    """Put the cheetah's constants on the device of the direction."""
    return Environment(stand, partial(run_on, body=body_on(direction.device)))


CHEETAH = Environment(stand, run_on, prepared)
