"""A cheetah in the plane that runs forward or backward, as the half-cheetah of arXiv 1703.03400, section 5.3.

A torso and two legs of two links are five rods with the angles theta, counted from the ground; metres, seconds and
kilograms. Every point p of the body is at r + sum_j C_pj (cos theta_j, sin theta_j), where r is the middle of the torso
and C is constant. So with u the derivative of the coordinates q = (r, theta), points have the velocities J(q) u and the
accelerations J u' - C (cos theta, sin theta) theta'^2, and by d'Alembert's principle

    J^T diag(m) (J u' - C (cos theta, sin theta) theta'^2) = J^T f + S^T tau.

A rod weighs as a sixth of its mass at each end and the rest in its middle do, exactly. Forces f on a point are its
weight and, at a depth d below the ground, N = k d (1 - c v_z), never below 0, upward, with the friction
-mu N v_x / sqrt(v_x^2 + v_0^2). Torques tau on the joints' angles S theta are the motors', of springs to the stance
and of dampers. The body is its own mirror image, so that neither direction is easier.

`velocities` solves for u one short step later, with what is linear in it taken there (a linearly
implicit Euler step), so that springs and contacts as stiff as these are stable.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor

from .rollouts import Environment

STEP, SUBSTEPS = 0.05, 3  # s between actions, and steps of the equations of motion within
SPIN = 10.0
GRAVITY = 9.81  # m / s^2
TORQUE, SPRING, DAMPER = 50.0, 50.0, 2.0  # N m at the action 1; N m / rad; N m s / rad
STIFFNESS, DISSIPATION = 5000.0, 2.0  # of the ground: k in N / m, c in s / m
FRICTION, SLIP = 1.0, 0.1  # mu, v_0 in m / s

F64 = torch.float64
# Rods: torso, back thigh, back shin, front thigh, front shin. Points: their ends, then their middles.
STANCE = torch.tensor([0.0, 0.5 - math.pi / 2, -0.5 - math.pi / 2, -0.5 - math.pi / 2, 0.5 - math.pi / 2], dtype=F64)
ENDS = torch.tensor(
    [[-5, 0, 0, 0, 0], [5, 0, 0, 0, 0], [-5, 3, 0, 0, 0], [-5, 3, 3, 0, 0], [5, 0, 0, 3, 0], [5, 0, 0, 3, 3]], dtype=F64
)
RODS = [(0, 1), (0, 2), (2, 3), (1, 4), (4, 5)]  # which ends each has
MASSES = torch.tensor([6.0, 1.5, 1.0, 1.5, 1.0], dtype=F64)
FROM, TO = (torch.nn.functional.one_hot(torch.tensor(end), 6).to(F64) for end in zip(*RODS, strict=True))
POINTS = torch.cat([ENDS, (FROM + TO) @ ENDS / 2]) / 10  # C: [points, rods]
WEIGHTS = torch.cat([MASSES @ (FROM + TO) / 6, MASSES * 4 / 6])  # m: [points]
JOINTS = torch.tensor([[-1, 1, 0, 0, 0], [0, -1, 1, 0, 0], [-1, 0, 0, 1, 0], [0, 0, 0, -1, 1]], dtype=F64)  # S
HEIGHT = -float((POINTS @ STANCE.sin()).min())  # of the torso while it stands
LEVERS = torch.cat([torch.ones(len(POINTS), 2, dtype=F64), POINTS], 1)  # J but for the angles: [points, 7]
PAIRS = (LEVERS[:, :, None] * LEVERS[:, None]).flatten(1)  # [points, 49]
HINGES = torch.nn.functional.pad(JOINTS, (2, 0))  # [joints, 7]


def velocities(height: Tensor, turned: Tensor, u: Tensor, action: Tensor, dt: float | Tensor) -> Tensor:
    """u after dt: [n, 7], given the height of the torso [n] and how the rods are turned [n, 5], both from the stance."""
    m, stance, levers, pairs, hinges = (x.to(u) for x in (WEIGHTS, STANCE, LEVERS, PAIRS, HINGES))
    cos, sin = (turned + stance).cos(), (turned + stance).sin()
    one, zero = torch.ones_like(u[..., :1]), torch.zeros_like(u[..., :1])
    s = torch.stack([torch.cat([one, zero, -sin], -1), torch.cat([zero, one, cos], -1)], -2)  # [n, 2, 7]
    v = (s * u[..., None, :]) @ levers.mT  # [n, 2, points]
    drag, lift = ground(height[..., None] + HEIGHT + sin @ levers[:, 2:].mT, *v.unbind(-2), dt)
    turning = (torch.stack([cos, sin], -2) * u[..., None, 2:].square()) @ levers[:, 2:].mT
    weight = torch.stack([torch.zeros_like(lift), lift - GRAVITY * m], -2)
    torque = TORQUE * action.clamp(-1, 1) - SPRING * turned @ hinges[:, 2:].mT
    push = (s * ((m * (v + dt * turning) + dt * weight) @ levers)).sum(-2) + dt * torque @ hinges
    outer = (s[..., :, None] * s[..., None, :]).flatten(-2)  # [n, 2, 49]
    mass = (outer * ((m + dt * drag) @ pairs)).sum(-2).unflatten(-1, (7, 7))
    mass = mass + (dt * DAMPER + dt * dt * SPRING) * hinges.mT @ hinges
    return cast(Any, torch.linalg).solve_ex(mass, push)[0]


def ground(z: Tensor, v_x: Tensor, v_z: Tensor, dt: float | Tensor) -> tuple[Tensor, Tensor]:
    """Of points at the height z: the force -drag v + lift of the ground, drag along both axes."""
    depth = (-z).clamp(min=0)
    pressed = STIFFNESS * depth * (DISSIPATION * v_z < 1)
    normal = pressed * (1 - DISSIPATION * v_z)
    friction = FRICTION * normal / (v_x.square() + SLIP**2).sqrt()
    yielding = pressed * DISSIPATION + dt * STIFFNESS * (pressed > 0)
    return torch.stack([friction, yielding], -2), pressed


def stand(direction: Tensor) -> Tensor:
    """A state [n, 13]: the torso's height and the turns of five rods, from the stance; and their velocities, u."""
    return direction.new_zeros(*direction.shape[:-1], 13)


def run(state: Tensor, action: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Act for one step; the reward is the torso's speed in the direction [n, 1], of 1 or -1, in m / s."""
    height, turned, u = state[..., 0], state[..., 1:6], torch.cat([state[..., 6:8], SPIN * state[..., 8:]], -1)
    way = torch.zeros_like(height)
    dt = STEP / SUBSTEPS
    for _ in range(SUBSTEPS):
        u = velocities(height, turned, u, action, dt)
        height, turned, way = height + dt * u[..., 1], turned + dt * u[..., 2:], way + dt * u[..., 0]
    state = torch.cat([height[..., None], turned, u[..., :2], u[..., 2:] / SPIN], -1)
    return state, direction[..., 0] * way / STEP, torch.zeros_like(height, dtype=torch.bool)


CHEETAH = Environment(stand, run)
