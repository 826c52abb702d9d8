"""Every algorithm of the registry, and the problems of which the answers are known."""

import inspect
from importlib import import_module

import pytest
import torch
from problems import F64, adapted, doubled, image_tasks, quadratic_tasks, regression_tasks, relative

import fmaml
from fmaml import Algorithm, Batch
from fmaml.config.registry import TABLE
from fmaml.types import ThetaT, TrajectoryFn

LR, STEPS, DIM = 0.3, 4, 5
CLASSES_ONLY = {name for name, entry in TABLE["algorithm"].items() if "classes" in entry.needs}


def called(name):
    """The function of an algorithm in the table: one that is added there is tested here."""
    module, _, function = TABLE["algorithm"][name].target.partition(":")
    return getattr(import_module(module), function)


def taking(setting):
    return [name for name in TABLE["algorithm"] if setting in inspect.signature(called(name)).parameters]


BY_NAME, UNROLLED = taking("inner"), taking("remat")
assert len(BY_NAME) >= 14  # all that take inner steps, but for those whose learnt rule is the optimizer
assert len(UNROLLED) >= 11  # all that differentiate through their inner steps


def listed(laws, fn):
    """Adds a function to a file's list of laws, under its name."""
    laws.append(pytest.param(fn, id=fn.__name__))
    return fn


def hold(answers):
    """Of pairs (found, expected), trees of the same shape."""
    pairs = list(answers())
    assert pairs
    for found, expected in pairs:
        assert relative(found, expected) < 1e-12


def walk(algorithm: Algorithm[ThetaT]) -> TrajectoryFn[ThetaT]:
    """The trajectory of an algorithm that has one."""
    assert algorithm.trajectory is not None
    return algorithm.trajectory


def annealed(algorithm: Algorithm[ThetaT], step: int) -> Algorithm[ThetaT]:
    """An algorithm whose loss changes during training, as it is at a meta-step."""
    assert algorithm.at is not None
    return algorithm.at(step)


# The problems


def bowls():
    """Quadratic tasks and a theta: (tasks, theta, phi_K, A (theta - c))."""
    tasks, theta = quadratic_tasks(7, DIM), torch.randn(DIM, dtype=F64)
    slope = times(tasks.support.x, theta - tasks.support.y)
    return tasks, theta, adapted(theta, tasks, LR, STEPS), slope


def times(matrix, vector):
    return (matrix @ vector[..., None])[..., 0]


def network(**options):
    """A small smooth network with a head called layer3, its loss, its parameters and three regression tasks."""
    model = fmaml.mlp(inputs=(3,), outputs=2, hidden=[8, 8], activation="tanh", **options)
    params = doubled(model.init(torch.Generator().manual_seed(0)))
    return model, fmaml.supervised(model.apply, fmaml.mse), params, regression_tasks(3, 3, 2)


def images():
    """A small conv4, its loss, its parameters and three 3-way tasks."""
    model = fmaml.conv4(inputs=(1, 16, 16), outputs=3, width=8)
    params = doubled(model.init(torch.Generator().manual_seed(0)))
    return model, fmaml.supervised(model.apply, fmaml.cross_entropy), params, image_tasks(3, (1, 16, 16))


def alike():
    """The same with images that can be told apart: the queries of a class are its support image, a little changed."""
    model, loss_fn, params, tasks = images()
    first = tasks.support.x.repeat_interleave(2, 1)
    return model, loss_fn, params, tasks._replace(query=Batch(first + 0.1 * tasks.query.x, tasks.query.y))


def gradient(algorithm, params, tasks):
    """The meta-gradient at the algorithm's first theta, as far as it is that of the parameters."""
    grads, metrics = fmaml.meta_grad(algorithm, algorithm.init(params), tasks)
    return grads.get("params", grads), metrics["query_loss"]


def same(one, other, params, tasks):
    """Both have one meta-gradient with respect to the parameters, and one query loss."""
    yield gradient(one, params, tasks), gradient(other, params, tasks)


# All of them


def made(name, model, loss_fn, **settings):
    """The algorithm with those of the settings that it takes."""
    function = called(name)
    takes = inspect.signature(function).parameters
    given = {"loss_fn": loss_fn, "apply": model.apply, "chunks": 1, **settings}
    return function(**{key: value for key, value in given.items() if key in takes})


def family(model, loss_fn):
    """Every algorithm of the table, by name, on conv4."""
    settings = {"inner_lr": 0.1, "steps": 2}
    everything = fmaml.mamlpp(loss_fn, **settings, multi_step_until=9, first_order_until=5, inner="adam")
    return {name: made(name, model, loss_fn, **settings) for name in TABLE["algorithm"]} | {
        "all of MAML++": annealed(everything, 6),
        # not rmsprop: it divides a gradient that is zero but for rounding by itself, and so enlarges rounding
        "reptile on minibatches": fmaml.reptile(loss_fn, **settings, minibatch=2, inner="momentum"),
    }


FAMILY = [*TABLE["algorithm"], "all of MAML++", "reptile on minibatches"]
