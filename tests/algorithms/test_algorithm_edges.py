"""Where an algorithm makes no sense, and what goes wrong at the edges."""

from typing import Any, cast

import pytest
import torch
from family import CLASSES_ONLY, LR, images, made, network
from problems import F64, doubled, image_tasks, peak, regression_tasks, relative

import fmaml
from fmaml import Algorithm, Batch, Task
from fmaml.algorithms.reptile import minibatches
from fmaml.head import cosine_basis
from fmaml.tree import map_leaves, take


@pytest.mark.parametrize("norms_by_step", [True, False])
def test_the_mask_of_mamlpp_holds_its_norms_too(norms_by_step):
    _, loss_fn, params, tasks = images()
    algorithm = fmaml.mamlpp(loss_fn, inner_lr=LR, steps=2, norms_by_step=norms_by_step, only=("head.*",))
    theta = map_leaves(lambda p: p + 0.01 * torch.rand_like(p), algorithm.init(params))
    phi = algorithm.adapt(theta, take(tasks, 0).support)
    assert theta["params"].keys() == params.keys()
    assert {name for name in phi if not torch.equal(phi[name], theta["params"][name])} == {"head.weight", "head.bias"}


def test_norms_by_step_are_those_inside_blocks_too():
    model = fmaml.transformer(inputs=(6,), outputs=5, width=8, heads=2, layers=1)
    params = model.init(torch.Generator().manual_seed(0))
    theta = fmaml.mamlpp(fmaml.supervised(model.apply, fmaml.bits), inner_lr=LR, steps=2).init(params)
    assert "norms" in theta
    norms = theta["norms"]
    assert set(norms) == {n for n in params if n.split(".")[-2].startswith("norm")}
    assert "block1.norm1.weight" in norms


def test_mamlpp_says_which_patterns_leave_nothing():
    _, loss_fn, params, _ = images()
    with pytest.raises(ValueError, match="norms_by_step takes them all"):
        fmaml.mamlpp(loss_fn, inner_lr=LR, steps=2, only=("norm*",)).init(params)
    with pytest.raises(ValueError, match=r"^norms = \['film\*'\]: 'film\*' matches no parameter"):
        fmaml.mamlpp(loss_fn, inner_lr=LR, steps=2, norms=("film*",)).init(params)


def test_a_shared_head_that_no_step_changes_is_refused():
    _, loss_fn, params, _ = images()
    algorithm = fmaml.unicorn_maml(loss_fn, inner_lr=LR, steps=2, only=("conv*", "head.bias"))
    with pytest.raises(
        ValueError, match=r"leaves out head\.weight, so no score would depend on the example; add head\.weight"
    ):
        algorithm.init(params)


def test_what_never_changes_needs_no_step():
    model, loss_fn, _, _ = images()
    for name in ("mamlpp", "proto_mamlpp"):
        assert made(name, model, loss_fn, inner_lr=LR, steps=2).at is None


@pytest.mark.parametrize(("rows", "columns"), [(8, 4), (10, 10), (4, 9), (32, 64)])
def test_learnt_maps_begin_at_full_rank(rows, columns):
    assert torch.linalg.cond(cosine_basis(rows, columns, torch.zeros((), dtype=F64))) < 1.5


@pytest.mark.parametrize("name", sorted(CLASSES_ONLY))
def test_no_classes_no_prototypes(name):
    model, loss_fn, params, tasks = network()
    algorithm = made(name, model, loss_fn, inner_lr=LR, steps=1, head="layer3")
    with pytest.raises(ValueError, match=f"{name}: needs one class label"):
        fmaml.meta_grad(algorithm, algorithm.init(params), tasks)


@pytest.mark.parametrize("name", sorted(CLASSES_ONLY | {"r2d2"}))
def test_a_head_that_is_not_there_is_named_with_what_is(name):
    model, loss_fn, params, _ = network()
    with pytest.raises(ValueError, match=r"no linear layer head.weight .*layer3.weight"):
        made(name, model, loss_fn, inner_lr=LR, steps=1).init(params)


def test_a_layer_for_the_context_that_is_not_there():
    _, loss_fn, params, _ = network()
    with pytest.raises(ValueError, match=r"no parameter norm3.bias; there are .*layer1.weight"):
        fmaml.cavia(loss_fn, inner_lr=LR, steps=1).init(params)


def test_a_pattern_that_names_nothing():
    _, loss_fn, params, tasks = network()
    with pytest.raises(ValueError, match=r"'head.\*' matches no parameter; there are .*layer3.weight"):
        fmaml.anil(loss_fn, inner_lr=LR, steps=1).adapt(params, take(tasks, 0).support)
    with pytest.raises(ValueError, match="nothing to adapt"):
        fmaml.maml(loss_fn, inner_lr=LR, steps=1, only=()).adapt(params, take(tasks, 0).support)


def test_no_inner_steps_no_loss_after_each():
    model, loss_fn, _, _ = images()
    with pytest.raises(ValueError, match="takes no inner steps"):
        fmaml.multi_step(fmaml.protonet(loss_fn, model.apply), loss_fn, until=3)


@pytest.mark.parametrize("rule", [fmaml.adam(0.1), fmaml.adamw(0.1), fmaml.momentum(0.1)])
@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_a_parameter_without_a_gradient_makes_no_nan_in_the_inner_optimizer(rule, batching):
    _, loss_fn, params, tasks = network()
    params = {**params, "idle": torch.ones(2, dtype=F64)}

    def without_idle(params, batch):
        return loss_fn({name: p for name, p in params.items() if name != "idle"}, batch)

    algorithm = fmaml.maml(without_idle, inner_lr=fmaml.chain(fmaml.clip_by_global_norm(1.0), rule), steps=3)
    grads, _ = fmaml.meta_grad(algorithm, params, tasks, batching=batching)
    assert all(g.isfinite().all() for g in grads.values())


def test_fillers_have_no_say():
    """Rows with label -1 only fill up a batch."""
    model = fmaml.mlp(inputs=(4,), outputs=3, hidden=[8])
    loss_fn = fmaml.supervised(model.apply, fmaml.cross_entropy)
    params, task = doubled(model.init(torch.Generator().manual_seed(0))), take(image_tasks(1, (4,)), 0)
    more = Batch(
        torch.cat([task.support.x, torch.rand(2, 4, dtype=F64)]), torch.cat([task.support.y, -torch.ones(2).long()])
    )
    methods = [method(loss_fn, model.apply, head="layer2") for method in (fmaml.protonet, fmaml.r2d2)]
    methods += [fmaml.pretrain(model.apply, classifier=kind, head="layer2") for kind in ("prototypes", "ridge")]
    for algorithm in cast(list[Algorithm[Any]], methods):
        theta = algorithm.init(params)
        assert relative(algorithm.adapt(theta, more), algorithm.adapt(theta, task.support)) < 1e-12


@pytest.mark.parametrize("name", sorted(CLASSES_ONLY))
def test_a_class_without_an_example_is_never_predicted(name):
    """A network for three classes on tasks of two: what it says is what a network for two would say."""
    model, loss_fn, params, _ = images()
    params |= {"head.weight": params["head.weight"][:1].repeat(3, 1)}  # so that a mean over classes is that over two
    task = take(image_tasks(1, (1, 16, 16), ways=2), 0)
    small = {**params, "head.weight": params["head.weight"][:2], "head.bias": params["head.bias"][:2]}
    algorithm = made(name, model, loss_fn, inner_lr=0.1, steps=2)
    three, two = (model.apply(algorithm.adapt(algorithm.init(p), task.support), task.query.x) for p in (params, small))
    assert (three[:, 2] < -1e8).all()
    assert relative(three[:, :2], two) < 1e-12


def test_ridge_of_pretraining_never_predicts_a_class_without_an_example():
    model, _, params, _ = images()
    task = take(image_tasks(1, (1, 16, 16), ways=2), 0)
    algorithm = fmaml.pretrain(model.apply, classifier="ridge")
    scores = model.apply(algorithm.adapt(params, task.support), task.query.x)
    assert (scores[:, 2] < -1e8).all()
    assert scores[:, :2].abs().max() < 1e3


@pytest.mark.parametrize(("n", "size"), [(6, 2), (5, 2), (7, 3), (1, 1), (10, 10), (4, 3), (25, 10)])
def test_minibatches_are_fair(n, size):
    batch, seen = Batch(torch.arange(n), torch.arange(n)), []
    for part in minibatches(batch, size, n):
        seen += part.y.tolist()
    assert all(seen.count(i) == size for i in range(n))
    assert len(set(seen[:n])) == n


def test_minibatches_of_none_or_more_than_all():
    """A model that was trained on larger support sets learns from smaller ones, too."""
    batch = Batch(torch.arange(5), torch.arange(5))
    with pytest.raises(ValueError, match="minibatch = 0: must be 1 or more, or None"):
        next(minibatches(batch, 0, 3))
    with pytest.raises(ValueError, match="steps = -1: must be 0 or more"):
        next(minibatches(batch, 2, -1))
    assert [part is batch for part in minibatches(batch, 6, 3)] == [True] * 3


def test_minibatches_of_a_network_with_several_inputs_hold_the_same_examples_of_each():
    numbers = torch.arange(6)
    for x in ({"a": numbers, "b": numbers * 10}, (numbers, numbers * 10)):
        part = next(minibatches(Batch(x, numbers), 4, 1))
        first, second = part.x.values() if isinstance(x, dict) else part.x
        assert torch.equal(first, part.y)
        assert torch.equal(second, part.y * 10)


def test_minibatches_mix_the_classes():
    labels = torch.arange(5).repeat_interleave(10)
    first = next(minibatches(Batch(labels, labels), 5, 1))
    assert len(first.y.unique()) >= 4


def test_imaml_needs_no_more_memory_for_more_steps():
    model = fmaml.mlp(inputs=(64,), outputs=2, hidden=[256])
    loss_fn, tasks = fmaml.supervised(model.apply, fmaml.mse), regression_tasks(2, 64, 2, n=64)
    params = doubled(model.init(torch.Generator().manual_seed(0)))

    def growth(method):
        few, many = (
            peak(lambda k=k: fmaml.meta_grad(method(loss_fn, inner_lr=0.01, steps=k), params, tasks)) for k in (2, 12)
        )
        return many / few

    assert growth(fmaml.maml) > 2
    assert growth(fmaml.imaml) < 1.01


def test_a_task_is_two_batches():
    assert isinstance(image_tasks(1, (1, 16, 16)), Task)
