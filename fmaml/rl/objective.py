"""The objective of policy gradients, whose higher derivatives include how the rollouts change."""

from torch import Tensor

from ..losses import Apply
from ..pickling import picklable
from ..types import Batch, LossFn, MetricFn, Params, Task
from .advantages import advantages, powers
from .rollouts import Environment, log_probability, noise_and_goal, rollouts


@picklable
def policy_loss(
    apply: Apply, environment: Environment, horizon: int, *, discount: float, gae_lambda: float, dice_lambda: float
) -> LossFn:
    """Minus the mean return of rollouts made by the parameters themselves.

    Its gradient is minus the policy gradient: the mean over all steps of grad log pi(a) A, with advantages A that are
    standardised (`advantages`). Differentiating again includes how the rollouts change; only the mean and the deviation
    by which advantages are standardised are held constant, as are baselines: a gradient divided by a deviation that
    depends on the parameters is no longer the gradient of anything.

    Args:
        apply: the policy, as for `rollouts`.
        environment: where it acts.
        horizon: steps of an episode.
        discount: of the rewards.
        gae_lambda: of the advantages.
        dice_lambda: how far back higher derivatives look: 1 leaves nothing out, less has a smaller variance, and 0 is
            the low-variance curvature of arXiv 1810.06784.

    Returns:
        (params, batch) -> scalar. ``batch.x`` is noise [n * horizon, actions], ``batch.y`` the goal, in every row.
    """

    def loss(params: Params, batch: Batch) -> Tensor:
        seen = rollouts(apply, params, environment, *noise_and_goal(batch, horizon))
        worth = advantages(seen, discount, gae_lambda)
        output = apply(params, seen.states.flatten(0, 1))
        log_p = log_probability(output, seen.actions.flatten(0, 1)).view_as(seen.weights) * seen.weights
        surrogate = (loaded_dice(log_p, dice_lambda) * worth).sum() / seen.weights.sum()
        return -seen.rewards.sum(1).mean() - surrogate

    return loss


def loaded_dice(log_p: Tensor, dice_lambda: float) -> Tensor:
    """A weight for each action's advantage, of value 0, by Loaded DiCE (arXiv 1909.10549, section 4).

    f(w_t) - f(v_t), with w_t = sum over t' <= t of lambda^(t - t') log pi(a_t'), v_t the same without t' = t, and
    f(x) = exp(x - stop(x)).
    """
    w = log_p @ powers(dice_lambda, log_p).mT
    v = w - log_p
    return (w - w.detach()).exp() - (v - v.detach()).exp()


@picklable
def mean_return(apply: Apply, environment: Environment, horizon: int) -> MetricFn:
    """(params, task) -> the mean sum of rewards on the rollouts of the query set, not discounted."""

    def metric_fn(params: Params, task: Task) -> Tensor:
        seen = rollouts(apply, params, environment, *noise_and_goal(task.query, horizon))
        return seen.rewards.sum(1).mean()

    return metric_fn
