"""A Gaussian policy: a perceptron for the mean of each action, and a learnt standard deviation."""

from typing import Literal

import torch
from torch import Generator, Tensor

from ..setting_types import Rate, Widths
from ..types import Model, Params
from .layers import named_model
from .mlp import mlp

LOG_STD = "log_std"


def policy(
    *,
    inputs: tuple[int, ...],
    outputs: int,
    hidden: Widths = (100, 100),
    activation: Literal["relu", "tanh"] = "relu",
    initial_std: Rate = 1.0,
) -> Model:
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
        ValueError: ``outputs`` is odd; ``initial_std`` is not above 0; an unknown ``activation``.

    Source: arXiv 1703.03400, section 5.3.

    >>> import torch, fmaml
    >>> model = fmaml.policy(inputs=(2,), outputs=4)
    >>> model.apply(model.init(torch.Generator()), torch.zeros(10, 2)).shape
    torch.Size([10, 4])
    """
    if initial_std <= 0:
        raise ValueError(f"policy: initial_std = {initial_std}: must be above 0")
    actions, rest = divmod(outputs, 2)
    if rest:
        raise ValueError(f"policy: outputs = {outputs}: must be even, a mean and a standard deviation for each action")
    mean = mlp(inputs=inputs, outputs=actions, hidden=hidden, activation=activation)

    def init(generator: Generator) -> Params:
        return {**mean.init(generator), LOG_STD: torch.full((actions,), initial_std).log()}

    def apply(params: Params, x: Tensor) -> Tensor:
        means = mean.apply({name: p for name, p in params.items() if name != LOG_STD}, x)
        return torch.cat([means, params[LOG_STD].expand_as(means)], -1)

    return named_model(init, apply)
