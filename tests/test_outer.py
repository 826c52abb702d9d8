"""meta_step, evaluate and the ways of batching: shapes, metrics, refusals."""

import pytest
import torch
from problems import F64, adapted, doubled, image_tasks, quadratic, quadratic_tasks, regression_tasks, relative

import fmaml
from fmaml import Batch, Task
from fmaml.outer import loop_wins
from fmaml.tree import map_leaves, take

pytestmark = pytest.mark.core


@pytest.fixture
def sines():
    model = fmaml.mlp(inputs=(3,), outputs=2)
    theta = doubled(model.init(torch.Generator().manual_seed(0)))
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.mse), inner_lr=0.05, steps=2)
    return model, theta, algorithm, regression_tasks(5, 3, 2)


def test_meta_step_is_gradient_then_optimizer(sines):
    _, theta, algorithm, tasks = sines
    optimizer = fmaml.sgd(0.3)
    state, metrics = fmaml.meta_step(algorithm, optimizer, fmaml.init_state(algorithm, optimizer, theta), tasks)
    grads, same = fmaml.meta_grad(algorithm, theta, tasks)
    assert relative(state.theta, map_leaves(lambda p, g: p - 0.3 * g, theta, grads)) < 1e-15
    assert metrics == same
    assert state.step == 1


def test_query_loss_metric_is_the_mean_query_loss(sines):
    model, theta, algorithm, tasks = sines
    loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    by_hand = [loss_fn(algorithm.adapt(theta, take(tasks, i).support), take(tasks, i).query) for i in range(5)]
    assert relative(fmaml.meta_grad(algorithm, theta, tasks)[1]["query_loss"], torch.stack(by_hand).mean()) < 1e-14


def test_reduce_sees_grads_and_metrics(sines):
    _, theta, algorithm, tasks = sines
    optimizer = fmaml.sgd(1.0)
    state = fmaml.init_state(algorithm, optimizer, theta)
    doubled_state, metrics = fmaml.meta_step(
        algorithm, optimizer, state, tasks, reduce=lambda both: map_leaves(lambda t: 2 * t, both)
    )
    grads, plain = fmaml.meta_grad(algorithm, theta, tasks)
    assert relative(doubled_state.theta, map_leaves(lambda p, g: p - 2 * g, theta, grads)) < 1e-15
    assert metrics["query_loss"] == 2 * plain["query_loss"]


def test_halves_of_a_meta_batch_average_to_the_whole(sines):
    """What two processes with a slice of the tasks each would do."""
    _, theta, algorithm, tasks = sines
    tasks = map_leaves(lambda t: t[:4], tasks)
    halves = [fmaml.meta_grad(algorithm, theta, take(tasks, slice(i, i + 2)))[0] for i in (0, 2)]
    mean = map_leaves(lambda a, b: (a + b) / 2, *halves)
    assert relative(mean, fmaml.meta_grad(algorithm, theta, tasks)[0]) < 1e-14


@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"batching": "loop"}])
def test_evaluate_gives_one_column_an_inner_step(options):
    """More steps than trained with; each column is the query loss at phi_k, in closed form."""
    tasks, theta = quadratic_tasks(5, 3), torch.randn(3, dtype=F64)
    algorithm = fmaml.maml(quadratic, inner_lr=0.3, steps=1)

    def metric_fn(params, task):
        return quadratic(params, task.query)

    rows = fmaml.evaluate(algorithm, metric_fn, {"p": theta}, tasks, steps=4, **options)
    assert rows.shape == (5, 5)
    for k in range(5):
        phi = adapted(theta, tasks, 0.3, k)
        expected = torch.stack([quadratic({"p": phi[i]}, take(tasks, i).query) for i in range(5)])
        assert relative(rows[:, k], expected) < 1e-13


def test_evaluate_defaults_to_the_steps_trained_with(sines):
    model, theta, algorithm, tasks = sines
    metric_fn = fmaml.transductive(model.apply, fmaml.mse)
    assert fmaml.evaluate(algorithm, metric_fn, theta, tasks).shape == (5, 3)
    bare = algorithm._replace(trajectory=None)
    assert torch.equal(
        fmaml.evaluate(bare, metric_fn, theta, tasks)[:, 0], fmaml.evaluate(algorithm, metric_fn, theta, tasks)[:, -1]
    )


def test_evaluate_builds_no_outer_graph(sines):
    model, theta, algorithm, tasks = sines
    theta = map_leaves(lambda p: p.clone().requires_grad_(), theta)
    rows = fmaml.evaluate(algorithm, fmaml.transductive(model.apply, fmaml.mse), theta, tasks)
    assert not rows.requires_grad


def test_evaluate_takes_a_dict_of_metrics(sines):
    model, theta, algorithm, tasks = sines
    mean = fmaml.transductive(model.apply, fmaml.mse)
    rows = fmaml.evaluate(algorithm, lambda p, t: {"mse": mean(p, t), "zero": t.query.x.sum() * 0}, theta, tasks)
    assert rows["mse"].shape == rows["zero"].shape == (5, 3)


def test_inductive_predicts_each_query_without_the_others():
    """Changing one query changes only its own prediction; together, batch norm lets it change the rest."""
    model = fmaml.conv4(inputs=(1, 28, 28), outputs=3, width=8)
    theta = doubled(model.init(torch.Generator().manual_seed(0)))
    task = take(image_tasks(1, (1, 28, 28)), 0)
    other = task.query.x.clone()
    other[0] = 1 - other[0]
    changed = task._replace(query=task.query._replace(x=other))
    seen = {}
    for setting in (fmaml.inductive, fmaml.transductive):
        outputs = []
        metric_fn = setting(model.apply, lambda out, y, keep=outputs: keep.append(out) or out.sum())
        for each in (task, changed):
            metric_fn(theta, each)
        seen[setting.__name__] = (outputs[0][1:] - outputs[1][1:]).abs().max()
    assert seen["inductive"] == 0
    assert seen["transductive"] > 1e-3

    alone = torch.cat([task.support.x, task.query.x[2:3]])
    outputs = []
    fmaml.inductive(model.apply, lambda out, y: outputs.append(out) or out.sum())(theta, task)
    assert relative(outputs[0][2], model.apply(theta, alone)[-1]) < 1e-13


def test_training_memory_is_freed_chunk_by_chunk(sines):
    """The gradient stands inside the vmap: at no time is there an outer graph that holds two chunks."""
    _, theta, algorithm, tasks = sines
    held = []

    def spy(t, task):
        value, metrics = algorithm.loss(t, task)
        held.append(task.support.x.shape)
        return value, metrics

    fmaml.meta_grad(algorithm._replace(loss=spy), theta, tasks, chunk_size=2)
    assert len(held) == 3  # 2 + 2 + 1 tasks


def test_wrong_arguments_are_named(sines):
    _, theta, algorithm, tasks = sines
    with pytest.raises(ValueError, match="batching = 'vamp': must be 'vmap', 'loop' or 'auto'"):
        fmaml.meta_grad(algorithm, theta, tasks, batching="vamp")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chunk_size = 0"):
        fmaml.meta_grad(algorithm, theta, tasks, chunk_size=0)
    with pytest.raises(ValueError, match="no tasks"):
        fmaml.meta_grad(algorithm, theta, map_leaves(lambda t: t[:0], tasks))
    with pytest.raises(ValueError, match="one leading axis `tasks`"):
        fmaml.meta_grad(algorithm, theta, tasks._replace(query=take(tasks.query, slice(0, 3))))


def test_learns_a_task_family():
    """Lines through the origin: after training, two inner steps do what they could not do before."""
    generator = torch.Generator().manual_seed(1)

    def lines(n):
        slope = torch.randn(n, 1, 1, generator=generator)
        xs = [torch.randn(n, 8, 1, generator=generator) for _ in "sq"]
        return Task(*(Batch(x, slope * x) for x in xs))

    model = fmaml.mlp(inputs=(1,), outputs=1)
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.mse), inner_lr=0.1, steps=2)
    optimizer = fmaml.adam(fmaml.cosine(1e-2, 150))
    state = fmaml.init_state(algorithm, optimizer, model.init(generator))
    fresh, metric_fn = lines(400), fmaml.transductive(model.apply, fmaml.mse)
    before = fmaml.evaluate(algorithm, metric_fn, state.theta, fresh).mean(0)
    for _ in range(150):
        state, _ = fmaml.meta_step(algorithm, optimizer, state, lines(16))
    after = fmaml.evaluate(algorithm, metric_fn, state.theta, fresh).mean(0)
    assert after[-1] < 0.3 * before[-1]
    assert after[-1] < 0.2 * after[0]


def test_parameters_that_require_grad_leave_no_graph_behind():
    module = torch.nn.Linear(3, 2)
    model = fmaml.from_module(module)
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.mse), inner_lr=0.05, steps=1)
    optimizer = fmaml.sgd(0.1)
    state = fmaml.init_state(algorithm, optimizer, dict(module.named_parameters()))
    tasks = map_leaves(torch.Tensor.float, regression_tasks(2, 3, 2))
    state, _ = fmaml.meta_step(algorithm, optimizer, state, tasks)
    assert not any(leaf.requires_grad for leaf in state.theta.values())


def test_inductive_in_parts_is_the_same(monkeypatch):
    model = fmaml.conv4(inputs=(1, 28, 28), outputs=3, width=8)
    theta, tasks = doubled(model.init(torch.Generator().manual_seed(0))), image_tasks(2, (1, 28, 28))
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=1)
    metric_fn = fmaml.inductive(model.apply, fmaml.cross_entropy)
    whole = fmaml.evaluate(algorithm, metric_fn, theta, tasks)
    monkeypatch.setattr("fmaml.losses.INDUCTIVE_EXAMPLES", 8)
    assert relative(fmaml.evaluate(algorithm, metric_fn, theta, tasks), whole) < 1e-13


def test_auto_loops_over_a_single_task():
    def tasks(count: int, *shape: int) -> Task:
        batch = Batch(torch.zeros(count, 5, *shape), torch.zeros(count, 5))
        return Task(batch, Batch(torch.zeros(count, 75, *shape), torch.zeros(count, 75)))

    assert loop_wins(tasks(1, 1, 28, 28))
    assert not loop_wins(tasks(4, 1, 28, 28))
    assert not loop_wins(tasks(4, 3, 84, 84))
