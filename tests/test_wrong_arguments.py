"""Wrong arguments of the public calls are refused by name, with a cure that works."""

# wrong types are given on purpose:
# pyright: reportArgumentType=false

import numpy as np
import pytest
import torch
from test_loss_values import accuracy, cross_entropy
from test_own_losses import classes, in_float64, theta  # noqa: F401
from torch import nn

import fmaml
from fmaml import Batch, Task


def maml(**options):
    return fmaml.maml(cross_entropy, **{"inner_lr": 0.1, "steps": 1, **options})


def grad(algorithm=None, params=None, tasks=None, **how):
    """The meta-gradient of right arguments, but for those given."""
    given = theta() if params is None else params
    return fmaml.meta_grad(algorithm or maml(), given, classes() if tasks is None else tasks, **how)


def scored(metric, **how):
    return fmaml.evaluate(maml(), metric, theta(), classes(), **how)


LAYER = nn.Linear(5, 3, dtype=torch.float64)
NO_QUERY = Task(classes().support, Batch(torch.ones(3, 0, 5), torch.zeros(3, 0, dtype=torch.long)))
W = {"w": np.ones((3, 5)), "b": torch.zeros(3, dtype=torch.float64)}
METRIC = "must be a scalar tensor, a number, or a dict of them by name"
THETA = "must hold tensors alone; give the theta of init_state, dict"
WRONG = {  # name: (the wrong call, its message, the cured call)
    "metric None": (lambda **how: scored(lambda p, t: None, **how), f"the metric returns None: {METRIC}", None),
    "metric str": (lambda **how: scored(lambda p, t: "a", **how), f"the metric returns a str: {METRIC}", None),
    "metric dict": (lambda **how: scored(lambda p, t: {"a": {1}}, **how), f"returns a set: {METRIC}", None),
    "theta number": (
        lambda **how: grad(params={**theta(), "b": 1.0}, **how),
        f"theta: holds a value of the type float, {THETA}",
        lambda **how: grad(params={**theta(), "b": torch.as_tensor(1.0)}, **how),
    ),
    "theta array": (
        lambda **how: grad(params=W, **how),
        f"theta: holds a value of the type ndarray, {THETA}",
        lambda **how: grad(params={name: torch.as_tensor(value) for name, value in W.items()}, **how),
    ),
    "theta module": (
        lambda **how: grad(params=LAYER, **how),
        f"theta: holds a value of the type Linear, {THETA}",
        lambda **how: grad(params={"w": LAYER.weight, "b": LAYER.bias}, **how),
    ),
    "rates": (
        lambda **how: grad(maml(inner_lr=torch.ones(5)), **how),
        r"inner_lr has the shape \[5\]: must be a scalar; give a dict of rates",
        lambda **how: grad(maml(inner_lr={"w": torch.ones(5), "b": 0.1}), **how),
    ),
    "no query": (
        lambda **how: grad(tasks=NO_QUERY, **how),
        "tasks.query: has no examples, so it has no mean loss; give one",
        lambda **how: grad(**how),
    ),
    "chunk": (lambda **how: grad(chunk_size=1.5, **how), "chunk_size = 1.5: must be at least 1, or None", None),
    "algorithm": (
        lambda **how: fmaml.meta_grad(fmaml.maml, theta(), classes(), **how),
        r"algorithm = maml: must be an Algorithm; give fmaml.maml\(loss_fn",
        lambda **how: grad(**how),
    ),
}


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_refused_with_a_cure_that_works(name, batching):
    wrong, message, cured = WRONG[name]
    with pytest.raises(ValueError, match=message):
        wrong(batching=batching)
    if cured:
        assert any((g != 0).any() for g in cured(batching=batching)[0].values())
    else:
        assert scored(lambda p, t: {"a": accuracy(p, t), "b": 1}, batching=batching)["b"].eq(1).all()
