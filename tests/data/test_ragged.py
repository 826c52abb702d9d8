"""Padded tasks: what is drawn, and that padding changes neither loss nor gradient."""

import pytest
import torch
from torch.func import grad

import fmaml
from fmaml.data.class_examples import equal_classes, sample_episodes
from fmaml.data.episodes import Episode, episodes
from fmaml.data.ragged import (
    bounds,
    describe_size,
    mask_absent_classes,
    queries_a_class,
    randomize_sizes,
    without_padding,
)
from fmaml.data.source import task_keys
from fmaml.losses import accuracy, cross_entropy, inductive, supervised, transductive
from fmaml.nn.conv4 import conv4
from fmaml.tree import map_leaves, take
from fmaml.types import Batch, Task

CPU = torch.device("cpu")
WAYS, SHOTS, QUERIES = [2, 5], [1, 3], [2, 4]
SIZES = {"ways": WAYS, "shots": SHOTS, "queries": QUERIES}


def numbered(classes=12, each=9, size=2):
    """Pixel (0, 0) of each image is its class, pixel (0, 1) its number in it; the rest is noise."""
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (classes, each, 1, size, size), dtype=torch.uint8, generator=noise)
    images[:, :, 0, 0, 0] = torch.arange(classes, dtype=torch.uint8)[:, None]
    images[:, :, 0, 0, 1] = torch.arange(each, dtype=torch.uint8)
    return equal_classes(images)


def draw(tasks=400, sizes=SIZES, split=None):
    keys = task_keys(0, "train", 0, range(tasks), CPU)
    most = {name: bounds(size)[1] for name, size in sizes.items()}
    full = sample_episodes(split or numbered(), keys, **most)
    return full, randomize_sizes(full, keys, **sizes)


def source(classes=12, each=9, size=2, **sizes):
    splits = {name: numbered(classes, each, size) for name in ("train", "val", "test")}
    return episodes(splits, 0, Episode(**{**SIZES, **sizes}), {})


def identities(batch):
    """(class, image) of each row."""
    return (batch.x[..., 0, 0, :2] * 255).round().long()


# ---- what is drawn


def sizes_of(tasks):
    """For each task its ways, the shots and the queries of each."""
    for support, query in zip(tasks.support.y, tasks.query.y, strict=True):
        counts = [y[y >= 0].bincount().tolist() for y in (support, query)]
        assert len(counts[0]) == len(counts[1])
        yield len(counts[0]), *counts


def test_all_sizes_within_the_bounds_come_up_equally_often():
    found = list(sizes_of(draw(3000)[1]))
    for (least, most), values in (
        (WAYS, [ways for ways, _, _ in found]),
        (SHOTS, [n for _, shots, _ in found for n in shots]),
        (QUERIES, [n for _, _, queries in found for n in queries]),
    ):
        counts = torch.tensor(values).bincount()
        assert counts[:least].sum() == 0
        assert len(counts) == most + 1
        share = counts[least:] / counts.sum()
        assert (share * len(share) - 1).abs().max() < 0.1


def test_shots_differ_within_a_task():
    assert sum(len(set(shots)) > 1 for _, shots, _ in sizes_of(draw()[1])) > 150


def test_padding_repeats_real_rows_of_the_same_task_and_set():
    _, tasks = draw()
    for batch in tasks:
        for x, y in zip(identities(batch), batch.y, strict=True):
            rows = {tuple(row) for row in x[y >= 0].tolist()}
            assert {tuple(row) for row in x[y < 0].tolist()} <= rows
            assert len(rows) == (y >= 0).sum()


def test_real_rows_are_the_full_task_s_own():
    full, tasks = draw()
    for whole, batch in zip(full, tasks, strict=True):
        kept = batch.y >= 0
        assert torch.equal(batch.x[kept], whole.x[kept])
        assert torch.equal(batch.y[kept], whole.y[kept])


def test_single_numbers_leave_a_task_as_it_is():
    full, tasks = draw(20, {"ways": [5, 5], "shots": 2, "queries": [3, 3]})
    assert torch.equal(full.query.x, tasks.query.x)
    assert torch.equal(full.support.y, tasks.support.y)


def test_a_task_depends_on_its_number_alone():
    whole = source().sample("test", 3, range(16))
    for piece in (range(0, 8), range(5, 6), range(1, 16, 2)):
        part = source().sample("test", 3, piece)
        expected = map_leaves(lambda leaf, piece=piece: leaf[piece.start : piece.stop : piece.step], whole)
        assert torch.equal(part.query.x, expected.query.x)
        assert torch.equal(part.support.y, expected.support.y)


def test_the_source_says_so():
    made = source()
    assert made.outputs == 5
    assert made.about["task"] == "2 to 5-way 1 to 3-shot"
    assert "2 to 4 queries a class, from 12 unseen classes" in made.about["protocol"]
    assert [queries_a_class(size) for size in (1, 2, (1, 1))] == [
        "1 query a class",
        "2 queries a class",
        "1 query a class",
    ]
    assert made.chance == pytest.approx((1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 4)
    assert describe_size(3) == "3"


def test_a_plain_source_keeps_its_criterion():
    assert source(ways=5, shots=1, queries=3).criterion is cross_entropy


# ---- exactness


def alone(task):
    """One task without its padding."""
    return Task(without_padding(task.support), without_padding(task.query))


def learner(norm, ways):
    model = conv4(inputs=(1, 16, 16), outputs=ways, width=32, norm=norm)  # of 16, groups at 1x1 are two numbers
    return model, model.init(torch.Generator().manual_seed(0))


def head(params, ways):
    """The parameters of a network that has only so many outputs."""
    return {name: leaf[:ways] if name.startswith("head.") else leaf for name, leaf in params.items()}


def largest(tree):
    return max(leaf.abs().max().item() for leaf in tree.values())


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("norm", ["none", "layer", "group"])
def test_a_padded_task_is_the_task_alone_on_a_network_of_its_own_ways(norm, first_order):
    """Loss and meta-gradient in float64, three inner steps, padded and vmapped against unpadded, one by one."""
    made = source(size=16)
    tasks = map_leaves(
        lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, made.sample("train", 1, range(6))
    )
    model, params = learner(norm, made.outputs)
    params = {name: leaf.double() for name, leaf in params.items()}
    settings = {"inner_lr": 0.1, "steps": 3, "first_order": first_order}
    padded = fmaml.maml(supervised(model.apply, made.criterion), **settings)
    plain = fmaml.maml(supervised(model.apply, cross_entropy), **settings)
    assert {ways for ways, _, _ in sizes_of(tasks)} >= {2, 5}

    losses, expected = [], dict.fromkeys(params, 0)
    for i in range(6):
        task = alone(take(tasks, i))
        ways = int(task.query.y.max()) + 1
        loss = lambda theta, task=task, ways=ways: plain.loss(head(theta, ways), task)[0]  # noqa: E731
        losses.append(loss(params))
        gradient = grad(loss)(params)
        expected = {name: expected[name] + gradient[name] / 6 for name in params}
    found, metrics = fmaml.meta_grad(padded, params, tasks)
    torch.testing.assert_close(metrics["query_loss"], torch.stack(losses).mean(), rtol=1e-12, atol=0)
    for name in params:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-12 * largest(expected))


def test_with_batch_norm_padding_counts_as_the_docstring_says():
    """The loss is another one, and its gradient is that of the padded batch: twice the row, twice the weight."""
    made = source(size=16)
    task = take(made.sample("train", 1, range(6)), 0)
    model, params = learner("batch", made.outputs)
    loss = supervised(model.apply, made.criterion)
    assert (task.query.y < 0).any()
    assert abs(loss(params, task.query) - loss(params, without_padding(task.query))) > 1e-4
    rows = model.apply(params, task.query.x)
    kept = task.query.y >= 0
    torch.testing.assert_close(
        loss(params, task.query), mask_absent_classes(cross_entropy)(rows[kept], task.query.y[kept])
    )


@pytest.mark.parametrize("setting", [transductive, inductive])
def test_a_padded_task_s_accuracy_is_the_task_s(setting):
    made = source(size=16)
    tasks = made.sample("test", 0, range(8))
    model, params = learner("none", made.outputs)
    metric = setting(model.apply, made.metric.fn)
    found = fmaml.evaluate(
        fmaml.maml(supervised(model.apply, made.criterion), inner_lr=0.1, steps=2), metric, params, tasks
    )
    for i in range(8):
        task = alone(take(tasks, i))
        ways = int(task.query.y.max()) + 1
        plain = fmaml.maml(supervised(model.apply, cross_entropy), inner_lr=0.1, steps=2)
        phi = plain.adapt(head(params, ways), task.support)
        assert found[i, -1].item() == pytest.approx(setting(model.apply, accuracy)(phi, task).item())


def test_what_is_absent_is_never_predicted():
    logits, y = torch.tensor([[0.0, 1.0, 9.0], [2.0, 1.0, 9.0], [0.0, 0.0, 9.0]]), torch.tensor([1, 0, -1])
    assert mask_absent_classes(accuracy)(logits, y) == 1
    assert accuracy(logits, y) == 0


def test_label_minus_one_does_not_count():
    logits, y = torch.randn(6, 4), torch.tensor([0, 3, -1, 2, -1, -1])
    kept = y >= 0
    torch.testing.assert_close(cross_entropy(logits, y), cross_entropy(logits[kept], y[kept]))
    assert accuracy(logits, y) == accuracy(logits[kept], y[kept])
    assert grad(lambda rows: cross_entropy(rows, y))(logits)[~kept].abs().sum() == 0


def test_a_single_task_without_padding_is_itself():
    batch = Batch(torch.randn(3, 2), torch.tensor([0, 1, 0]))
    assert torch.equal(without_padding(batch).x, batch.x)
