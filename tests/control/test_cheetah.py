"""The planar cheetah moves as Lagrange's equations say, and a run draws it."""

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import cloudpickle
import pytest
import torch
from problems import F64, relative
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jvp, vmap

import fmaml
from examples.control import body
from examples.control.body import (
    CHEETAH,
    DAMPER,
    GRAVITY,
    HEIGHT,
    JOINTS,
    SPRING,
    STANCE,
    TORQUE,
    body_on,
    outline,
    velocities,
)
from examples.control.cheetah import cheetah
from examples.control.navigation import NAVIGATION
from examples.control.policy import policy
from examples.control.rollouts import rollouts, with_goal
from examples.control.tasks import normal
from fmaml import tree
from fmaml.cli.main import main
from fmaml.data.source import Source
from fmaml.types import Params

YAML = str(Path(__file__).parents[2] / "examples/control/cheetah.yaml")
LENGTHS = torch.tensor([1.0, 0.3, 0.3, 0.3, 0.3], dtype=F64)
CPU = torch.device("cpu")
BODY = body_on(CPU)
IN_THE_AIR, ON_THE_GROUND = 2.0, -0.2


def moving(height: float) -> tuple[Tensor, Tensor, Tensor]:
    """A random (q, u), q = (x, z, theta), and an action."""
    q = torch.cat([torch.tensor([0.7, height + HEIGHT], dtype=F64), STANCE + 0.4 * torch.randn(5, dtype=F64)])
    return q, torch.randn(7, dtype=F64), torch.rand(4, dtype=F64) - 0.5


def acceleration(q: Tensor, u: Tensor, action: Tensor) -> Tensor:
    """Of the equations of motion, the limit of a step of no length."""
    zero = torch.zeros((), dtype=F64)

    def after(dt: Tensor) -> Tensor:
        return velocities(BODY, q[1] - HEIGHT, q[2:] - STANCE, u, action, dt)

    return jvp(after, (zero,), (zero + 1,))[1]


def along(fn: Callable[[Tensor], Tensor], q: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """A function of q, and its derivative in time."""
    return cast(Any, jvp(fn, (q,), (u,)))


# The body as rods, written down once more


def centres(q: Tensor) -> Tensor:
    """The middles of the five rods, which hang on each other: [5, 2]."""
    rods = torch.stack([q[2:].cos(), q[2:].sin()], 1) * LENGTHS[:, None]
    torso, (_, back, back_shin, front, front_shin) = q[:2], rods
    hip, shoulder = torso - rods[0] / 2, torso + rods[0] / 2
    legs = [hip + back / 2, hip + back + back_shin / 2, shoulder + front / 2, shoulder + front + front_shin / 2]
    return torch.stack([torso, *legs])


def kinetic(q: Tensor, u: Tensor) -> Tensor:
    """1/2 m v^2 + 1/2 (m l^2 / 12) omega^2, over the rods."""
    v = along(centres, q, u)[1]
    return (body.MASSES * (v.square().sum(1) + LENGTHS**2 / 12 * u[2:].square())).sum() / 2


def potential(q: Tensor) -> Tensor:
    """Of the weight, of the joints' springs and of the ground."""
    springs = SPRING / 2 * (JOINTS @ (q[2:] - STANCE)).square().sum()
    pressed = body.STIFFNESS / 2 * (-touching(q)[:, 1]).clamp(min=0).square().sum()
    return GRAVITY * (body.MASSES * centres(q)[:, 1]).sum() + springs + pressed


def touching(q: Tensor) -> Tensor:
    """The points that the ground can press: the ends of the rods and their middles, [11, 2]."""
    rods = torch.stack([q[2:].cos(), q[2:].sin()], 1) * LENGTHS[:, None]
    middle = centres(q)
    ends = torch.cat([middle[:1] - rods[:1] / 2, middle + rods / 2])
    return torch.cat([ends, middle])


def damping(u: Tensor) -> Tensor:
    """The power that the joints' dampers take."""
    return DAMPER * (JOINTS @ u[2:]).square().sum()


def energy_rate(q: Tensor, u: Tensor, action: Tensor) -> Tensor:
    def energy(q: Tensor, u: Tensor) -> Tensor:
        return kinetic(q, u) + potential(q)

    return jvp(energy, (q, u), (u, acceleration(q, u, action)))[1]


def test_it_moves_as_lagranges_equations_say():
    q, u, action = moving(IN_THE_AIR)
    mass, momentum = hessian(kinetic, 1)(q, u), grad(kinetic, 1)
    torque = TORQUE * action - DAMPER * (JOINTS @ u[2:])
    forces = grad(kinetic)(q, u) - grad(potential)(q) + torch.cat([torch.zeros(2, dtype=F64), JOINTS.T @ torque])
    expected = torch.linalg.solve(mass, forces - jacfwd(momentum)(q, u) @ u)
    assert relative(acceleration(q, u, action), expected) < 1e-12


def test_in_the_air_the_energy_is_what_motors_give_and_dampers_take():
    q, u, action = moving(IN_THE_AIR)
    power = TORQUE * action @ (JOINTS @ u[2:]) - damping(u)
    assert relative(energy_rate(q, u, action), power) < 1e-11


def test_in_the_air_only_weight_changes_the_momentum_and_nothing_the_spin():
    q, u, action = moving(IN_THE_AIR)

    def momenta(q: Tensor, u: Tensor) -> Tensor:
        at, v = along(centres, q, u)
        m = body.MASSES[:, None]
        linear = (m * v).sum(0)
        apart = at - (m * at).sum(0) / m.sum()
        spin = (m[:, 0] * (apart[:, 0] * v[:, 1] - apart[:, 1] * v[:, 0] + LENGTHS**2 / 12 * u[2:])).sum()
        return torch.cat([linear, spin[None]])

    found = jvp(momenta, (q, u), (u, acceleration(q, u, action)))[1]
    expected = torch.tensor([0, -GRAVITY * float(body.MASSES.sum()), 0], dtype=F64)
    assert (found - expected).abs().max() < 1e-10


def test_the_ground_takes_the_energy_that_its_law_says():
    """N = k d (1 - c v_z), never below 0, and friction against v_x; the spring k d gives back what it takes."""
    pressed = leaving = 0
    for _ in range(10):
        q, u, _ = moving(ON_THE_GROUND)
        at, v = along(touching, q, u)
        depth = (-at[:, 1]).clamp(min=0)
        force = (body.STIFFNESS * depth * (1 - body.DISSIPATION * v[:, 1])).clamp(min=0)
        rubbing = body.FRICTION * force * v[:, 0].square() / (v[:, 0].square() + body.SLIP**2).sqrt()
        given = (force - body.STIFFNESS * depth) * v[:, 1] - rubbing
        assert relative(energy_rate(q, u, torch.zeros(4, dtype=F64)), given.sum() - damping(u)) < 1e-10
        pressed, leaving = pressed + int((force > 0).sum()), leaving + int(((depth > 0) & (force == 0)).sum())
    assert pressed > 10
    assert leaving > 0


def momentum(q: Tensor, u: Tensor) -> Tensor:
    """Forward and upward."""
    return (body.MASSES[:, None] * along(centres, q, u)[1]).sum(0)


def pushed(q: Tensor, u: Tensor, after: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """The ground's force in a step from u to ``after``, forward and upward: the change of the momentum, less weight."""
    change = (momentum(q, after) - momentum(q, u)) / dt + along(partial(momentum, u=u), q, u)[1]
    return change[0], change[1] + GRAVITY * body.MASSES.sum()


def test_the_ground_never_pulls_and_rubs_only_where_it_presses():
    """In steps as long as those of a run."""
    falling = torch.zeros(2, dtype=torch.long)
    for height, dt in ((ON_THE_GROUND, body.STEP / body.SUBSTEPS), (-0.02, 0.05)):
        for _ in range(50):
            q, u, action = moving(height)
            after = velocities(BODY, q[1] - HEIGHT, q[2:] - STANCE, u, action, dt)
            rubbing, normal = pushed(q, u, after, dt)
            assert normal > -1e-9
            assert normal > 1e-9 or abs(rubbing) < 1e-9
            falling += torch.stack([normal < 1e-9, normal > 1e-9])
    assert (falling > 10).all()


def test_friction_stays_in_its_cone_in_every_contact():
    """In 20 episodes of strong random actions. Where one point touches, the ground's force is that contact's."""
    contacts = alone = 0
    dt, n, actions = body.STEP / body.SUBSTEPS, 20, torch.Generator().manual_seed(0)
    height, turned, u = torch.zeros(n, dtype=F64), torch.zeros(n, 5, dtype=F64), torch.zeros(n, 7, dtype=F64)
    for action in torch.randn(15, n, 4, dtype=F64, generator=actions).repeat_interleave(body.SUBSTEPS, 0):
        q = torch.cat([torch.zeros(n, 1, dtype=F64), height[:, None] + HEIGHT, STANCE + turned], 1)
        after = velocities(BODY, height, turned, u, action, dt)
        friction, normal = vmap(partial(pushed, dt=dt))(q, u, after)
        assert (friction.abs() <= body.FRICTION * normal + 1e-9).all()
        contacts += int((normal > 1e-9).sum())
        alone += int(((normal > 1e-9) & ((vmap(touching)(q)[..., 1] < 0).sum(1) == 1)).sum())
        u, height, turned = after, height + dt * after[:, 1], turned + dt * after[:, 2:]
    assert contacts > 400
    assert alone > 200


def test_steps_of_half_the_length_are_half_as_wrong(monkeypatch):
    """Against the same second in the air and on the ground by very short ones."""
    way, ended = [], []
    actions = torch.rand(20, 1, 4, dtype=F64) - 0.5
    for substeps in (8, 16, 256):
        monkeypatch.setattr(body, "SUBSTEPS", substeps)
        state, total = torch.zeros(1, 13, dtype=F64), torch.zeros(1, dtype=F64)
        for action in actions:
            state, speed, _ = CHEETAH.step(state, action, torch.ones(1, 1, dtype=F64))
            total = total + speed
        way.append(total)
        ended.append(state)
    assert 0.4 < relative(ended[1], ended[2]) / relative(ended[0], ended[2]) < 0.6
    assert relative(ended[1], ended[2]) < 0.1


def test_it_stands_and_the_ground_carries_its_weight():
    forward, still = torch.ones(1, 1, dtype=F64), torch.zeros(1, 4, dtype=F64)
    state = CHEETAH.start(forward)
    for _ in range(200):
        state, _, _ = CHEETAH.step(state, still, forward)
    _, speed, ended = CHEETAH.step(state, still, forward)
    depth = -outline(state)[0, :, 1]
    assert relative(body.STIFFNESS * depth.clamp(min=0).sum(), GRAVITY * body.MASSES.sum()) < 1e-4
    assert state[:, 6:].abs().max() < 0.01  # its feet creep apart
    assert speed.abs().max() < 1e-8
    assert not ended.any()


def mirrored(state: Tensor) -> Tensor:
    height, turned, v, spin = state.split([1, 5, 2, 5], -1)
    swapped = [0, 3, 4, 1, 2]  # the legs
    return torch.cat([height, -turned[:, swapped], v * v.new_tensor([-1, 1]), -spin[:, swapped]], -1)


def test_its_mirror_image_runs_the_other_way():
    state = 0.3 * torch.randn(8, 13, dtype=F64)
    action, direction = torch.randn(8, 4, dtype=F64), torch.tensor([1.0, -1.0] * 4, dtype=F64)[:, None]
    after, speed, _ = CHEETAH.step(state, action, direction)
    other, same_speed, _ = CHEETAH.step(mirrored(state), -action[:, [2, 3, 0, 1]], -direction)
    assert relative(other, mirrored(after)) < 1e-11
    assert relative(same_speed, speed) < 1e-11


def test_the_reward_is_how_far_it_comes_in_its_direction():
    """In free flight its middle of mass keeps its speed, so a rigid body's torso does."""
    state = torch.zeros(2, 13, dtype=F64)
    state[:, 0], state[:, 6] = IN_THE_AIR, 3.0
    _, speed, _ = CHEETAH.step(state, torch.zeros(2, 4, dtype=F64), torch.tensor([[1.0], [-1.0]], dtype=F64))
    assert relative(speed, torch.tensor([3.0, -3.0], dtype=F64)) < 1e-12


# As a source of tasks


def small() -> Source:
    return cheetah(seed=0, device=torch.device("cpu"), episodes=3, horizon=6)


def test_vmapped_equals_looped_to_second_order():
    source = small()
    model = policy(inputs=source.inputs, outputs=source.outputs, hidden=[8])
    params = {name: p.double() for name, p in model.init(torch.Generator().manual_seed(0)).items()}
    tasks = tree.map_leaves(Tensor.double, source.sample("train", 0, range(3)))
    assert source.loss is not None
    algorithm = fmaml.maml(source.loss(model.apply), inner_lr=0.5, steps=2)
    found, same = (fmaml.meta_grad(algorithm, params, tasks, batching=way) for way in ("vmap", "loop"))
    assert relative(found, same) < 1e-9


def test_its_directions_are_as_likely_and_stay_for_a_task():
    tasks = small().sample("train", 0, range(400))
    directions = tasks.support.y[:, 0, 0]
    assert directions.unique().tolist() == [-1, 1]
    assert abs(float(directions.mean())) < 0.15
    assert all((batch.y == directions[:, None, None]).all() for batch in tasks)


@pytest.mark.parametrize("environment", [CHEETAH, NAVIGATION])
def test_who_is_told_sees_the_goal_and_acts_in_the_same_world(environment):
    """The same actions give the same states and rewards, with the goal beside them."""
    noise = torch.randn(3, 6, 4 if environment is CHEETAH else 2, generator=torch.Generator().manual_seed(0))
    goal = torch.tensor([[1.0], [-1.0], [1.0]]) if environment is CHEETAH else torch.rand(3, 2)
    plain, informed = (rollouts(noise_alone, {}, each, noise, goal) for each in (environment, with_goal(environment)))
    size = goal.shape[-1]
    assert torch.equal(informed.states[..., :-size], plain.states)
    assert torch.equal(informed.states[..., -size:], goal[:, None].expand(-1, 6, -1))
    assert all(torch.equal(a, b) for a, b in zip(informed[1:], plain[1:], strict=True))


def noise_alone(params: Params, states: Tensor) -> Tensor:
    """A policy of mean 0 and deviation 1."""
    return states.new_zeros(len(states), 8 if states.shape[-1] > 4 else 4)


def test_the_policy_of_a_source_that_tells_sees_one_number_more():
    source = cheetah(seed=0, device=torch.device("cpu"), episodes=3, horizon=6, told=True)
    assert source.inputs == (14,)
    assert source.loss is not None
    model = policy(inputs=source.inputs, outputs=source.outputs, hidden=[8])
    task = tree.map_leaves(lambda x: x[0], source.sample("train", 0, range(1)))
    grads = grad(source.loss(model.apply))(model.init(torch.Generator().manual_seed(0)), task.support)
    assert grads["layer1.weight"][:, 13].any()
    again = pickle.loads(cloudpickle.dumps(source.loss(model.apply)))
    params = model.init(torch.Generator().manual_seed(1))
    assert torch.equal(again(params, task.query), source.loss(model.apply)(params, task.query))
    metric = source.settings[0](model.apply, source.criterion)
    assert torch.equal(pickle.loads(cloudpickle.dumps(metric))(params, task), metric(params, task))


def test_noise_is_normal_and_that_of_each_joint_its_own():
    drawn = normal(torch.arange(5), 20_000, 3)
    assert drawn.shape == (5, 20_000, 3)
    columns = drawn.transpose(0, 1).flatten(1)  # every task's every joint
    assert (columns.mean(0).abs() < 0.03).all()
    assert relative(columns.T.cov(), torch.eye(15)) < 0.1
    assert abs(float((columns.abs() < 1).float().mean()) - 0.6827) < 0.005


@pytest.mark.pictures
def test_a_run_draws_both_directions(tmp_path):
    few = ["train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2", "train.baseline=false"]
    few += ["eval.tasks=3", "eval.steps=2", "data.episodes=3", "data.horizon=25"]
    assert main(["run", YAML, *few, "--out", str(tmp_path / "run")]) == 0
    assert "Left out" not in (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert (tmp_path / "run/cheetah.png").stat().st_size > 20_000
