"""Losses of a wrong type, or that change their input: refused at the first call, with a cure that works."""

# wrong types are given on purpose:
# pyright: reportArgumentType=false, reportAssertAlwaysTrue=false

from functools import partial

import numpy as np
import pytest
import torch
from problems import F64, relative
from test_own_losses import LR, STEPS, by_autograd, classes, found, in_float64, of, output, theta  # noqa: F401
from torch import nn
from torch.nn import functional as F

import fmaml


def cross_entropy(p, batch):
    return F.cross_entropy(output(p, batch.x), batch.y)


def each_example(p, batch):
    return F.cross_entropy(output(p, batch.x), batch.y, reduction="none")


def accuracy(p, task):
    return (output(p, task.query.x).argmax(-1) == task.query.y).double().mean()


def wave(p, batch):
    return torch.fft.fft(output(p, batch.x)).sum()


def returned(change):
    return lambda p, batch: change(cross_entropy(p, batch))


NUMBER = "compute it in torch, and leave out .item(), float() and .numpy()"
ALONE = "return the loss alone, and compute the rest in the metric of fmaml.evaluate"
WRONG = {  # name: (the wrong loss, its message, the cured loss)
    "float": (lambda p, b: 0.5, f"returns a float: must be a scalar tensor; {NUMBER}", cross_entropy),
    "numpy": (lambda p, b: np.float64(0.5), f"returns a float64: must be a scalar tensor; {NUMBER}", cross_entropy),
    "None": (lambda p, b: None, "returns None: must be a scalar tensor; end it with `return loss`", cross_entropy),
    "tuple": (returned(lambda loss: (loss, {})), f"returns a tuple: must be a scalar tensor; {ALONE}", cross_entropy),
    "empty": (returned(lambda loss: ()), f"returns a tuple: must be a scalar tensor; {ALONE}", cross_entropy),
    "list": (returned(lambda loss: [loss]), f"returns a list: must be a scalar tensor; {ALONE}", cross_entropy),
    "dict": (returned(lambda loss: {"": loss}), f"returns a dict: must be a scalar tensor; {ALONE}", cross_entropy),
    "vector": (each_example, "]: must be a scalar, []; return its .mean()", lambda p, b: each_example(p, b).mean()),
    "one": (
        returned(lambda loss: loss[None]),
        "the loss has the shape [1]: must be a scalar, []; return its .mean()",
        returned(lambda loss: loss[None].mean()),
    ),
    "complex": (
        wave,
        "is a complex number, torch.complex128: must be real; return its .abs() or .real",
        lambda p, b: wave(p, b).abs() + wave(p, b).real,
    ),
    "integer": (returned(torch.Tensor.long), "is of torch.int64, without a derivative", cross_entropy),
    "truth": (returned(lambda loss: loss > 0), "without .long(), comparisons or argmax", cross_entropy),
}
CALLS = {
    "meta_grad": fmaml.meta_grad,
    "meta_loss": fmaml.meta_loss,
    "meta_step": lambda algorithm, params, tasks, **how: fmaml.meta_step(
        algorithm, fmaml.sgd(0.1), fmaml.init_state(algorithm, fmaml.sgd(0.1), params), tasks, **how
    ),
    "evaluate": lambda algorithm, params, tasks, **how: fmaml.evaluate(algorithm, accuracy, params, tasks, **how),
}


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("name", WRONG)
def test_a_loss_of_a_wrong_type_is_refused_at_its_first_call_with_a_cure_that_works(name, batching):
    wrong, message, cured = WRONG[name]
    tasks, params = classes(), theta()
    for call in CALLS.values():
        with pytest.raises(ValueError, match=r"^the loss ") as error:
            call(fmaml.maml(wrong, inner_lr=LR, steps=1), params, tasks, batching=batching)
        assert message in str(error.value)
    for call in (fmaml.meta_grad, fmaml.meta_loss):  # without an inner step only the query loss is computed
        with pytest.raises(ValueError, match=r"^the loss "):
            call(fmaml.maml(wrong, inner_lr=LR, steps=0), params, tasks, batching=batching)
    assert relative(found(cured, params, tasks, batching), by_autograd(cured, params, tasks)) < 1e-12


ALGORITHMS = {
    "maml": fmaml.maml,
    "recomputed": partial(fmaml.maml, remat=True),
    "reptile": fmaml.reptile,
    "imaml": fmaml.imaml,
    "mamlpp": partial(fmaml.mamlpp, norms=("b",)),
    "meta_sgd": fmaml.meta_sgd,
    "warpgrad": partial(fmaml.warpgrad, only=("w",)),
    "scratch": fmaml.scratch,
    "joint": fmaml.joint,
}


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_algorithm_refuses_a_vector_and_a_tuple(name, batching):
    for wrong in (each_example, returned(lambda loss: (loss, {}))):
        algorithm = ALGORITHMS[name](wrong, inner_lr=LR, steps=1)
        with pytest.raises(ValueError, match=r"^the loss (has the shape \[[34]\]: must be|returns a tuple: must be)"):
            fmaml.meta_grad(algorithm, algorithm.init(theta()), classes(), batching=batching)


def test_an_algorithm_of_ones_own_returns_a_loss_and_metrics():
    wrong = fmaml.Algorithm(dict, lambda theta, support: theta, lambda theta, task: cross_entropy(theta, task.query))
    for call in (fmaml.meta_grad, fmaml.meta_loss):
        with pytest.raises(ValueError, match=r"an algorithm's loss returns a Tensor: must be \(loss, metrics\)"):
            call(wrong, theta(), classes())
    right = wrong._replace(loss=lambda theta, task: fmaml.query_loss(cross_entropy, lambda t, _: t, theta, task))
    assert fmaml.meta_grad(right, theta(), classes())


# Changes in place


def changing_input(p, batch):
    batch.x.add_(1)
    return cross_entropy(p, batch)


def changing_weights(p, batch):
    with torch.no_grad():
        p["w"].mul_(0.5)
    return cross_entropy(p, batch)


def changing_weights_seen(p, batch):
    p["w"].mul_(0.5)
    return cross_entropy(p, batch)


def half(p, batch):
    return cross_entropy({**p, "w": p["w"] * 0.5}, batch)


CHANGES = {  # (the loss, its message, its cure)
    "input": (
        changing_input,
        "in place changes numbers that a|changes tasks.(support|query).x in place",
        lambda p, b: cross_entropy(p, b._replace(x=b.x + 1)),
    ),
    "weights": (changing_weights, r"changes theta\['w'\] in place, also for later calls; write it without", half),
    "weights with gradients": (changing_weights_seen, r"an operation in place changes a parameter; write it", half),
}


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_loss_that_changes_its_arguments_is_refused_with_a_cure_that_works(name, batching):
    wrong, message, cured = CHANGES[name]
    for call in CALLS.values():
        with pytest.raises(ValueError, match=message):
            call(fmaml.maml(wrong, inner_lr=LR, steps=STEPS), theta(), classes(), batching=batching)
    tasks, params = classes(), theta()
    assert relative(found(cured, params, tasks, batching), by_autograd(cured, params, tasks)) < 1e-12


def test_an_operation_in_place_on_a_result_is_right():
    def loss(p, batch):
        h = output(p, batch.x)
        h *= 2
        h[:, 0] += 1
        return F.cross_entropy(h, batch.y)

    tasks, params = classes(), theta()
    for batching in ("vmap", "loop"):
        assert relative(found(loss, params, tasks, batching), by_autograd(loss, params, tasks)) < 1e-12


def test_tensors_of_inference_mode_are_no_change():
    net = nn.Linear(5, 3, dtype=F64)
    with torch.inference_mode():
        tasks = classes()
    params = {name: p.detach() for name, p in net.named_parameters()}
    algorithm = fmaml.maml(of(lambda out, y: out.square().mean()), inner_lr=LR, steps=0)
    algorithm = algorithm._replace(loss=lambda theta, task: (theta["weight"].square().sum(), {}))
    assert fmaml.meta_grad(algorithm, params, tasks)
