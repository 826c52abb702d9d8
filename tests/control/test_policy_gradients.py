"""Policy gradients and their derivatives are those of expected returns that are known in closed form."""

from typing import Any, cast

import pytest
import torch
from problems import F64, relative
from torch import Tensor
from torch.func import grad, hessian

import fmaml
from examples.control.navigation import NAVIGATION, navigation, straight_walk
from examples.control.objective import advantages, discounted, fitted_values, loaded_dice, mean_return, policy_loss
from examples.control.policy import policy
from examples.control.rollouts import Environment, Rollouts, log_probability, noise_and_goal, rollouts
from fmaml import Batch, Task, tree

SAMPLES = 400_000
MEAN, LOG_STD, GOAL = 0.4, -0.5, 1.0


def drawn(steps: int) -> tuple[Tensor, Tensor]:
    """A policy's parameters, and actions of it: [samples, steps, 1]."""
    at = torch.tensor([MEAN, LOG_STD], dtype=F64)
    noise = torch.randn(SAMPLES, steps, 1, dtype=F64, generator=torch.Generator().manual_seed(0))
    return at, MEAN + at[1].exp() * noise


def objective(at: Tensor, actions: Tensor, returns: Tensor, dice_lambda: float) -> Tensor:
    """Loaded DiCE of returns [samples], which are the advantage of every action."""
    log_p = log_probability(at.expand(*actions.shape[:2], 2).flatten(0, 1), actions.flatten(0, 1))
    weights = loaded_dice(log_p.unflatten(0, actions.shape[:2]), dice_lambda)
    return (weights * returns[:, None]).sum(1).mean()


def test_of_one_action_to_second_order():
    """The reward -(a - g)^2 has the mean -(mu - g)^2 - sigma^2."""
    at, actions = drawn(1)
    returns = -(actions[:, 0, 0] - GOAL).square()

    def exact(at: Tensor) -> Tensor:
        return -(at[0] - GOAL).square() - (2 * at[1]).exp()

    assert relative(grad(objective)(at, actions, returns, 1.0), grad(exact)(at)) < 0.01
    assert relative(hessian(objective)(at, actions, returns, 1.0), hessian(exact)(at)) < 0.03


@pytest.mark.parametrize(("dice_lambda", "curvature"), [(1.0, -8.0), (0.0, -4.0)])
def test_of_two_actions_and_of_what_the_low_variance_curvature_leaves_out(dice_lambda, curvature):
    """The return -(a_0 + a_1)^2 has the mean -4 mu^2 - 2 sigma^2; without the mixed terms its curvature is half."""
    at, actions = drawn(2)
    returns = -actions.sum((1, 2)).square()
    assert relative(grad(objective)(at, actions, returns, dice_lambda)[0], torch.tensor(-8 * MEAN)) < 0.01
    found = hessian(objective)(at, actions, returns, dice_lambda)[0, 0]
    assert relative(found, torch.tensor(curvature, dtype=F64)) < 0.05


def adding(at_step: int) -> Environment:
    """The state (sum of actions, steps taken); the reward -(sum - goal)^2 is paid once, at that step."""

    def step(state: Tensor, action: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        total, taken = state[:, :1] + action, state[:, 1:] + 1
        reward = -(total - goal).square() * (taken == at_step)
        return torch.cat([total, taken], 1), reward[:, 0], torch.zeros(len(state), dtype=torch.bool)

    return Environment(lambda goal: goal.new_zeros(len(goal), 2), step)


def derivatives(horizon: int, goal: float, dice_lambda: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient and Hessian of `policy_loss` by (mean, log deviation), and the deviation of the advantages.

    Episodes are all pairs of quantiles of the normal distribution.
    """
    at = torch.tensor([MEAN, LOG_STD], dtype=F64)
    count = 1_000_000 if horizon == 1 else 1_000
    quantiles = torch.special.ndtri((torch.arange(count, dtype=F64) + 0.5) / count)
    noise = torch.cartesian_prod(*[quantiles] * horizon).reshape(-1, 1)
    batch, environment = Batch(noise, torch.full_like(noise, goal)), adding(horizon)

    def apply(at: Tensor, states: Tensor) -> Tensor:
        return at.expand(len(states), 2)

    loss: Any = policy_loss(
        cast(Any, apply), environment, horizon, discount=1.0, gae_lambda=1.0, dice_lambda=dice_lambda
    )
    walked = rollouts(cast(Any, apply), cast(Any, at), environment, *noise_and_goal(batch, horizon))
    left = discounted(walked.rewards, 1.0)
    apart = left - fitted_values(walked, left)
    return grad(loss)(at, batch), hessian(loss)(at, batch), apart.std(correction=0)


def test_the_loss_of_one_action_to_second_order():
    """Derivatives of minus the expected reward, over the deviation of the advantages."""

    def exact(at: Tensor) -> Tensor:
        return (at[0] - GOAL).square() + (2 * at[1]).exp()

    at = torch.tensor([MEAN, LOG_STD], dtype=F64)
    first, second, deviation = derivatives(1, GOAL, 1.0)
    assert relative(first * deviation, grad(exact)(at)) < 1e-3
    assert relative(second * deviation, hessian(exact)(at)) < 1e-3


@pytest.mark.parametrize(("dice_lambda", "curvature"), [(1.0, 8.0), (0.0, 4.0)])
def test_the_loss_of_two_actions_to_second_order(dice_lambda, curvature):
    """Of -(a_0 + a_1)^2 as above; the mean over steps halves it."""
    first, second, deviation = derivatives(2, 0.0, dice_lambda)
    assert relative(2 * deviation * first[0], torch.tensor(8 * MEAN)) < 0.01
    assert relative(2 * deviation * second[0, 0], torch.tensor(curvature, dtype=F64)) < 0.02


def test_log_probability_is_that_of_torchs_normal():
    mean, log_std, actions = torch.randn(3, 5, 2, dtype=F64)
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(actions).sum(-1)
    assert relative(log_probability(torch.cat([mean, log_std], -1), actions), expected) < 1e-13


# Advantages


def seen(episodes: int = 4, horizon: int = 6) -> Rollouts:
    """Random rollouts, of which some end early."""
    lengths = torch.tensor([6, 3, 5, 6])[:episodes, None]
    weights = (torch.arange(horizon) < lengths).to(F64)
    states, actions = torch.randn(2, episodes, horizon, 2, dtype=F64)
    return Rollouts(states, actions, torch.randn(episodes, horizon, dtype=F64) * weights, weights)


def test_discounted_sums():
    x = torch.randn(3, 5, dtype=F64)
    columns = [torch.stack([0.9 ** (k - t) * x[:, k] for k in range(t, 5)]).sum(0) for t in range(5)]
    expected = torch.stack(columns, 1)
    assert relative(discounted(x, 0.9), expected) < 1e-13


def test_advantages_are_those_of_the_recursion():
    """A_t = delta_t + gamma lambda A_t+1, episode by episode, then standardised over all steps."""
    found, one = seen(), []
    values = fitted_values(found, discounted(found.rewards, 0.9))
    for n in range(4):
        length, ahead, column = int(found.weights[n].sum()), torch.zeros((), dtype=F64), []
        for t in reversed(range(length)):
            after = values[n, t + 1] if t + 1 < length else 0.0
            ahead = found.rewards[n, t] + 0.9 * after - values[n, t] + 0.9 * 0.7 * ahead
            column.insert(0, ahead)
        one.append(torch.stack(column))
    every = torch.cat(one)
    expected = (every - every.mean()) / every.std(correction=0)
    assert relative(advantages(found, 0.9, 0.7)[found.weights > 0], expected) < 1e-7


def test_the_baseline_finds_returns_that_are_linear_in_its_features():
    found = seen()
    returns = 2 * found.states[..., 0] - found.states[..., 1].square() + 0.01 * torch.arange(6) + 3
    assert relative(fitted_values(found, returns) * found.weights, returns * found.weights) < 1e-4


# Navigation


def straight(params, state):
    """Walks to ``params["goal"]``, as fast as can be, without noise."""
    mean = (params["goal"] - state) / 0.1
    return torch.cat([mean, torch.full_like(mean, -30.0)], -1)


def test_who_knows_the_goal_has_the_return_of_the_oracle():
    goal = torch.tensor([[0.33, -0.21]], dtype=F64)
    noise = torch.randn(1, 20, 2, dtype=F64)
    found = rollouts(straight, {"goal": goal}, NAVIGATION, noise, goal)
    assert relative(found.rewards.sum(1), straight_walk(goal, 20)) < 1e-9
    assert found.weights.sum() == 4  # 0.33 are four steps; there it ends
    assert (found.rewards[:, 4:] == 0).all()


def test_a_reward_after_the_end_does_not_count():
    goal = torch.tensor([[0.33, -0.21], [0.05, 0.05]], dtype=F64)
    metric = mean_return(straight, NAVIGATION, 20)
    batch = Batch(torch.randn(40, 2, dtype=F64), goal.repeat_interleave(20, 0))
    apart = metric({"goal": goal}, Task(batch, batch))
    assert relative(apart, straight_walk(goal, 20).mean()) < 1e-9


def problem():
    source = small_navigation()
    model = policy(inputs=(2,), outputs=4, hidden=[8])
    params = {name: p.double() for name, p in model.init(torch.Generator().manual_seed(0)).items()}
    tasks = tree.map_leaves(Tensor.double, source.sample("train", 0, range(3)))
    assert source.loss is not None
    return source.loss(model.apply), model, params, tasks


def small_navigation():
    return navigation(seed=0, device=torch.device("cpu"), episodes=4, horizon=10)


def test_the_gradient_is_minus_the_mean_of_log_probability_times_advantage():
    _, model, params, tasks = problem()
    batch = tree.take(tasks.support, 0)
    loss = policy_loss(model.apply, NAVIGATION, 10, discount=0.99, gae_lambda=1.0, dice_lambda=1.0)
    noise, goal = batch.x.unflatten(0, (4, 10)), batch.y.unflatten(0, (4, 10))[:, 0]
    walked = rollouts(model.apply, params, NAVIGATION, noise, goal)
    worth = advantages(walked, 0.99, 1.0)

    def plain(params):
        log_p = log_probability(model.apply(params, walked.states.flatten(0, 1)), walked.actions.flatten(0, 1))
        return -(log_p.unflatten(0, (4, 10)) * worth).sum() / walked.weights.sum()

    assert relative(grad(loss)(params, batch), grad(plain)(params)) < 1e-12
    assert relative(loss(params, batch), -walked.rewards.sum(1).mean()) < 1e-12


def test_vmapped_equals_looped_to_second_order():
    loss, _, params, tasks = problem()
    algorithm = fmaml.maml(loss, inner_lr=0.1, steps=2)
    found, same = (fmaml.meta_grad(algorithm, params, tasks, batching=way) for way in ("vmap", "loop"))
    assert relative(found, same) < 1e-10


def test_an_inner_step_acts_anew():
    """The second inner step sees the rollouts of the first one's parameters."""
    loss, _, params, tasks = problem()
    one, two = (fmaml.maml(loss, inner_lr=0.1, steps=steps) for steps in (1, 2))
    support = tree.take(tasks.support, 0)
    expected = fmaml.inner_update(loss, one.adapt(params, support), support, 0.1)
    assert relative(two.adapt(params, support), expected) < 1e-12


def test_a_policy_has_a_mean_and_a_deviation_for_each_action():
    with pytest.raises(ValueError, match="policy: outputs = 5: must be even"):
        policy(inputs=(2,), outputs=5)
