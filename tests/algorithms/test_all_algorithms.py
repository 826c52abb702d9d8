"""What every algorithm of the registry must do: one that is added there is tested here."""

import pickle
from functools import partial

import cloudpickle
import pytest
import torch
from family import CLASSES_ONLY, FAMILY, UNROLLED, alike, family, images, made, network
from problems import doubled, image_tasks, relative

import fmaml
from fmaml import Batch, Task
from fmaml.config.registry import TABLE
from fmaml.tree import leaves, map_leaves, take


@pytest.mark.parametrize("name", UNROLLED)
@pytest.mark.parametrize("options", [{}, {"batching": "loop"}, {"chunk_size": 2}], ids=["vmap", "loop", "chunks"])
def test_running_the_inner_steps_again_gives_the_same_gradient_of_all_of_theta(name, options):
    model, loss_fn, params, tasks = images()
    kept, again = (made(name, model, loss_fn, inner_lr=0.1, steps=2, remat=remat) for remat in (False, True))
    theta = map_leaves(lambda p: p + 0.01 * torch.rand_like(p), kept.init(params))
    kept, again = (fmaml.outer.at_step(algorithm, 0) for algorithm in (kept, again))
    assert relative(fmaml.meta_grad(again, theta, tasks, **options), fmaml.meta_grad(kept, theta, tasks)) < 1e-12


def compiled_gap(name, backend):
    """How far the compiled meta-gradient of an algorithm is from its own, on a tiny network."""
    model = fmaml.mlp(inputs=(3,), outputs=2, hidden=[4], activation="tanh")
    params, tasks = doubled(model.init(torch.Generator().manual_seed(0))), image_tasks(2, (3,), ways=2)
    only = {"anil": ("layer2.*",), "boil": ("layer1.*",)}.get(name, ("*",))
    part = {"head": "layer2", "layer": "layer1", "norms": ("layer1.*",), "multi_step_until": 9}
    loss_fn = fmaml.supervised(model.apply, fmaml.cross_entropy)
    algorithm = fmaml.outer.at_step(made(name, model, loss_fn, inner_lr=0.1, steps=2, only=only, **part), 3)
    theta = algorithm.init(params)
    torch.compiler.reset()
    compiled = torch.compile(partial(fmaml.meta_grad, algorithm), fullgraph=True, backend=backend)
    grads, metrics = compiled(theta, tasks)
    expected, also = fmaml.meta_grad(algorithm, theta, tasks)
    assert relative(metrics, also) < 1e-10
    return max(float((a - b).abs().max()) for a, b in zip(leaves(grads), leaves(expected), strict=True))


@pytest.mark.parametrize("name", TABLE["algorithm"])
def test_a_pickled_algorithm_gives_the_same_bits(name):
    model, loss_fn, params, tasks = images()
    settings = {"inner_lr": 0.1, "steps": 2, "multi_step_until": 9, "first_order_until": 5, "inner": "momentum"}
    algorithm = made(name, model, loss_fn, **settings)
    copied = pickle.loads(cloudpickle.dumps(algorithm))
    theta = algorithm.init(params)
    for step in (0, 6, 9):
        one, other = (fmaml.outer.at_step(each, step) for each in (algorithm, copied))
        assert same_bits(other.init(params), theta)
        assert same_bits(fmaml.meta_grad(other, theta, tasks), fmaml.meta_grad(one, theta, tasks))
    support = take(tasks, 0).support
    assert same_bits(copied.adapt(theta, support), algorithm.adapt(theta, support))
    if algorithm.trajectory:
        assert same_bits(copied.trajectory(theta, support, 3), algorithm.trajectory(theta, support, 3))


def same_bits(a, b):
    return all(torch.equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


@pytest.mark.filterwarnings("ignore")  # of torch's own tracing
@pytest.mark.parametrize("name", TABLE["algorithm"])
def test_traces_into_one_graph(name):
    assert compiled_gap(name, "eager") < 1e-10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TABLE["algorithm"])
def test_compiles_to_the_same_meta_gradient(name):
    assert compiled_gap(name, "inductor") < 1e-10


@pytest.mark.parametrize("name", FAMILY)
def test_vmap_loop_and_chunks_agree_and_the_query_loss_is_the_true_one(name):
    model, loss_fn, params, tasks = images()
    algorithm = family(model, loss_fn)[name]
    theta = map_leaves(lambda p: p + 0.01 * torch.rand_like(p), algorithm.init(params))
    before = map_leaves(torch.clone, theta)
    expected, metrics = fmaml.meta_grad(algorithm, theta, tasks, batching="loop")
    assert all(g.isfinite().all() for g in leaves(expected))
    assert (name == "scratch") == all((g == 0).all() for g in leaves(expected))
    for chunk_size in (None, 2, 1):
        grads, also = fmaml.meta_grad(algorithm, theta, tasks, chunk_size=chunk_size)
        assert relative(also, metrics) < 1e-12
        if name != "scratch":
            assert relative(grads, expected) < 1e-12
    if name not in ("joint", "streamed", "pretrain"):  # their query losses: of one network, and the mean over a stream
        phis = [algorithm.adapt(theta, take(tasks, i).support) for i in range(3)]
        losses = [loss_fn(phi, take(tasks, i).query) for i, phi in enumerate(phis)]
        assert relative(metrics["query_loss"], torch.stack(losses).mean()) < 1e-12
    assert all(torch.equal(a, b) for a, b in zip(leaves(before), leaves(theta), strict=True))


@pytest.mark.parametrize("name", FAMILY)
def test_learns_and_is_evaluated_by_inner_step(name):
    model, loss_fn, params, tasks = alike()
    algorithm, optimizer = family(model, loss_fn)[name], fmaml.adam(1e-2)
    state = fmaml.init_state(algorithm, optimizer, params)
    losses = []
    for _ in range(12):
        state, metrics = fmaml.meta_step(algorithm, optimizer, state, tasks)
        losses.append(float(metrics["query_loss"]))
    best = min(losses[-4:])
    assert best == pytest.approx(losses[0]) if name == "scratch" else best < 0.95 * losses[0]
    rows = fmaml.evaluate(algorithm, fmaml.inductive(model.apply, fmaml.accuracy), state.theta, tasks, steps=4)
    assert rows.shape == (3, 5 if algorithm.trajectory else 1)


def close(found, expected):
    """To 1e-12, also where both are 0."""
    pairs = zip(leaves(found), leaves(expected), strict=True)
    return all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in pairs)


def reversed_dicts(tree):
    """The same tree with every dict in the opposite order."""
    if isinstance(tree, dict):
        return {key: reversed_dicts(value) for key, value in reversed(tree.items())}
    return type(tree)(map(reversed_dicts, tree)) if isinstance(tree, list | tuple) else tree


def in_the_order_of(tree, other):
    return map_leaves(lambda _, leaf: leaf, tree, other)


@pytest.mark.parametrize("name", FAMILY)
def test_the_order_of_the_parameters_has_no_say(name):
    model, loss_fn, params, tasks = images()
    algorithm = family(model, loss_fn)[name]
    first = algorithm.init(params)
    assert relative(in_the_order_of(first, algorithm.init(reversed_dicts(params))), first) < 1e-12
    theta = map_leaves(lambda p: p + 0.01 * torch.rand_like(p), first)
    expected, metrics = fmaml.meta_grad(algorithm, theta, tasks)
    grads, also = fmaml.meta_grad(algorithm, reversed_dicts(theta), tasks)
    assert close((in_the_order_of(expected, grads), also), (expected, metrics))


def by_example(name):
    """An algorithm with a network that treats each example by itself, a theta, and three tasks of three classes."""
    model = fmaml.conv4(inputs=(1, 16, 16), outputs=3, width=8, norm="layer")
    params = doubled(model.init(torch.Generator().manual_seed(0)))
    algorithm = made(name, model, fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=2)
    theta = map_leaves(lambda p: p + 0.01 * torch.rand_like(p), algorithm.init(params))
    return algorithm, theta, image_tasks(3, (1, 16, 16))


@pytest.mark.parametrize("name", TABLE["algorithm"])
@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_examples_whose_label_is_negative_are_as_if_they_were_not_there(name, batching):
    algorithm, theta, tasks = by_example(name)

    def with_more(batch):
        more = Batch(torch.rand(3, 2, 1, 16, 16, dtype=batch.x.dtype), torch.tensor([[-1, -100]] * 3))
        return Batch(*(torch.cat([old[:, :1], new, old[:, 1:]], 1) for old, new in zip(batch, more, strict=True)))

    expected, metrics = fmaml.meta_grad(algorithm, theta, tasks, batching=batching)
    found, also = fmaml.meta_grad(algorithm, theta, Task(*map(with_more, tasks)), batching=batching)
    assert close((found, also), (expected, metrics))


@pytest.mark.parametrize("name", TABLE["algorithm"])
@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_a_task_without_labels_teaches_nothing(name, batching):
    algorithm, theta, tasks = by_example(name)
    unlabelled = Task(*(Batch(batch.x, torch.cat([batch.y[:2], -torch.ones_like(batch.y[2:])])) for batch in tasks))
    expected = fmaml.meta_grad(algorithm, theta, take(tasks, slice(0, 2)), batching=batching)
    found = fmaml.meta_grad(algorithm, theta, unlabelled, batching=batching)
    assert close(found, map_leaves(lambda mean: mean * 2 / 3, expected))


CONV_ONLY = {"boil": {"only": ("layer1.*",)}, "anil": {"only": ("layer3.*",)}, "mamlpp": {"norms_by_step": False}}


@pytest.mark.parametrize("name", sorted(set(TABLE["algorithm"]) - CLASSES_ONLY))
def test_regression(name):
    model, loss_fn, params, tasks = network()
    settings = {"inner_lr": 0.05, "steps": 3, "head": "layer3", "layer": "layer1"} | CONV_ONLY.get(name, {})
    algorithm = made(name, model, loss_fn, **settings)
    theta = algorithm.init(params)
    phi = algorithm.adapt(theta, take(tasks, 0).support)
    assert loss_fn(phi, take(tasks, 0).support) < loss_fn(params, take(tasks, 0).support)
    grads, _ = fmaml.meta_grad(algorithm, theta, tasks)
    assert all(g.isfinite().all() for g in leaves(grads))


@pytest.mark.parametrize("name", sorted(TABLE["algorithm"]))
def test_languages(name):
    """Passages of symbols: every algorithm that adapts by gradients learns from them; the others say why not."""
    model = fmaml.transformer(inputs=(6,), outputs=5, width=8, heads=2, layers=1)
    loss_fn = fmaml.supervised(model.apply, fmaml.bits)
    params, text = doubled(model.init(torch.Generator().manual_seed(0))), torch.randint(5, (2, 3, 7))
    tasks = Task(*[Batch(text[..., :-1], text[..., 1:])] * 2)
    only = {"boil": ("block*",), "anil": ("head.*",)}.get(name, ("*",))
    settings = {"inner_lr": 0.05, "steps": 2, "only": only, "layer": "norm", "norms_by_step": False}
    algorithm = made(name, model, loss_fn, **settings)
    if name in CLASSES_ONLY | {"r2d2"}:
        with pytest.raises(ValueError, match=f"{name}: needs one class label"):
            fmaml.meta_grad(algorithm, algorithm.init(params), tasks)
        return
    theta, support = algorithm.init(params), take(tasks, 0).support
    assert loss_fn(algorithm.adapt(theta, support), support) < loss_fn(params, support)
    grads, _ = fmaml.meta_grad(algorithm, theta, tasks)
    assert all(g.isfinite().all() for g in leaves(grads))
