"""A Gaussian policy: a perceptron for the mean of each action, and a learnt standard deviation."""

from typing import Literal

import torch
from torch import Generator, Tensor

import fmaml
from fmaml.setting_types import Rate, Widths, needs

LOG_STD = "log_std"


@needs("own_loss")
def policy(
    *,
    inputs: tuple[int, ...],
    outputs: int,
    hidden: Widths = (100, 100),
    activation: Literal["relu", "tanh"] = "relu",
    initial_std: Rate = 1.0,
) -> fmaml.Model:
    """A Gaussian policy: [n, *inputs] -> [n, outputs], the actions' means and log standard deviations.

    Args:
        inputs: the shape of one state; it is flattened.
        outputs: twice the number of actions.
        hidden: the widths of the hidden layers; the default is that of the MAML paper.
        activation: the activation function after each hidden layer, "relu" or "tanh".
        initial_std: the initial standard deviation of each action; it does not depend on the state.

    Returns:
        A model with the parameters of `fmaml.mlp` and "log_std" [actions].

    Raises:
        ValueError: ``outputs`` is odd; an unknown ``activation``.

    Source: arXiv 1703.03400, section 5.3.
    """
    actions, rest = divmod(outputs, 2)
    if rest:
        raise ValueError(f"policy: outputs = {outputs}: must be even, a mean and a standard deviation for each action")
    mean = fmaml.mlp(inputs=inputs, outputs=actions, hidden=hidden, activation=activation)

    def init(generator: Generator) -> fmaml.Params:
        return {**mean.init(generator), LOG_STD: torch.full((actions,), initial_std).log()}

    def apply(params: fmaml.Params, x: Tensor) -> Tensor:
        means = mean.apply({name: p for name, p in params.items() if name != LOG_STD}, x)
        return torch.cat([means, params[LOG_STD].expand_as(means)], -1)

    return fmaml.Model(init, apply)
