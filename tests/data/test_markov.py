"""Random languages: passages that follow their chain, and references that no mistake could hide in."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from fmaml.data.source import Source, task_keys
from fmaml.data.sources.markov import markov
from fmaml.data.text.markov_math import (
    bayes_bits,
    draw_passages,
    entropy_rate,
    log_gamma_draws,
    transition_tables,
    uniforms,
)
from fmaml.rng import fold

CPU = torch.device("cpu")
F64 = torch.float64


def source(**options):
    return markov(**{"seed": 0, "device": CPU, "symbols": 5, "shots": 3, "queries": 2, "length": 20, **options})


def keys(count: int, seed: int = 0) -> Tensor:
    return fold(fold(seed, 7), torch.arange(count))


def references_of(made: Source, tasks: range) -> dict[str, Tensor]:
    assert made.references is not None
    return made.references("test", 0, tasks)


def whole(batch) -> Tensor:
    return torch.cat([batch.x[..., :1], batch.y], -1)


# ---- the chains


@pytest.mark.parametrize("shape", [0.05, 0.2, 1.0, 4.0])
def test_gamma_draws_have_the_gamma_distribution(shape):
    draws = log_gamma_draws(keys(20_000), shape).exp()
    uniform = torch.special.gammainc(torch.tensor(shape, dtype=F64), draws).sort().values
    steps = torch.arange(1, len(draws) + 1) / len(draws)
    assert (uniform - steps).abs().max() < 1.95 / math.sqrt(len(draws))  # Kolmogorov and Smirnov, 1 in 1,000


def test_rows_are_dirichlet():
    table = transition_tables(keys(4000), 2, 3, 0.5)
    torch.testing.assert_close(table.sum(-1), torch.ones(4000, 2, dtype=F64))
    assert (table.mean(0) - 1 / 3).abs().max() < 0.02
    assert (table.var(0) - (1 / 3) * (2 / 3) / (1.5 + 1)).abs().max() < 0.01
    assert torch.corrcoef(table[:, :, 0].T)[0, 1].abs() < 0.06  # rows are independent


def test_tiny_concentrations_still_give_probabilities():
    assert transition_tables(keys(50), 4, 6, 1e-4).isfinite().all()


@pytest.mark.parametrize("order", [1, 2])
def test_passages_follow_the_table(order):
    symbols = 3
    table = transition_tables(keys(1), symbols**order, symbols, 1.0)
    text = draw_passages(uniforms(keys(1, seed=5), 3000, 12), table, order)[0]
    assert text.shape == (3000, 12)
    assert (text[:, :order].flatten().bincount() / text[:, :order].numel() - 1 / 3).abs().max() < 0.03
    for context in itertools.product(range(symbols), repeat=order):
        here = torch.ones(3000, 12 - order, dtype=torch.bool)
        for i, symbol in enumerate(context):
            here &= text[:, i : 12 - order + i] == symbol
        after = text[:, order:][here]
        row = table[0, int("".join(map(str, context)), symbols)]
        error = (after.bincount(minlength=symbols) / len(after) - row).abs().max()
        assert error < 2.2 / math.sqrt(len(after))


# ---- the references


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("q", [0.2, 0.7])
def test_entropy_rate_of_two_symbols_in_closed_form(p, q):
    def entropy(x):
        return -x * math.log2(x) - (1 - x) * math.log2(1 - x)

    table = torch.tensor([[[1 - p, p], [q, 1 - q]]], dtype=F64)
    expected = (q * entropy(p) + p * entropy(q)) / (p + q)
    assert float(entropy_rate(table, 1)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_entropy_rate_is_what_a_long_passage_costs(order):
    table = transition_tables(keys(3), 4**order, 4, 0.5)
    text = draw_passages(uniforms(keys(3, seed=1), 200, 500), table, order)[..., 100:]  # what came first is forgotten
    context = sum(text[..., i : 400 - order + i] * 4 ** (order - 1 - i) for i in range(order))
    paid = -table[torch.arange(3)[:, None, None], context, text[..., order:]].log2()
    torch.testing.assert_close(entropy_rate(table, order), paid.mean((1, 2)), rtol=0.02, atol=0)


def test_an_order_2_chain_that_looks_back_once_has_the_rate_of_order_1():
    table = transition_tables(keys(4), 3, 3, 0.5)
    torch.testing.assert_close(entropy_rate(table.repeat(1, 3, 1), 2), entropy_rate(table, 1), rtol=1e-10, atol=0)


@pytest.mark.parametrize(("order", "concentration"), [(1, 0.5), (1, 2.0), (2, 0.7)])
def test_bayes_is_the_ratio_of_integrals_over_all_languages(order, concentration):
    """P(next | support, prefix) = P(support, prefix, next) / P(support, prefix), each an integral over two-symbol
    tables by quadrature, with nothing counted."""
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.randint(2, (1, n, 6), generator=generator) for n in (2, 3))
    angle = (torch.arange(20_000, dtype=F64) + 0.5) / 20_000 * math.pi / 2
    p = angle.sin() ** 2  # a change of variable that takes the poles of the Beta density away
    density = (p * (1 - p)) ** (concentration - 0.5)

    def probability(texts: list[list[int]]) -> float:
        likelihood = {}
        for text in texts:
            for i in range(order, len(text)):
                row = tuple(text[i - order : i])
                likelihood[row] = likelihood.get(row, 1) * (p if text[i] else 1 - p)
        rows = [(value * density).mean() / density.mean() for value in likelihood.values()]
        return math.prod(map(float, rows)) * 0.5 ** sum(min(order, len(text)) for text in texts)

    read, total = support[0].tolist(), 0.0
    for passage in query[0].tolist():
        for i in range(1, 6):
            total -= math.log2(probability([*read, passage[: i + 1]]) / probability([*read, passage[:i]]))
    found = bayes_bits(support, query, 2, order, concentration)
    assert float(found) == pytest.approx(total / 15, rel=1e-5)


def test_nothing_beats_bayes_and_it_does_not_beat_the_entropy():
    options = {"symbols": 6, "length": 40, "concentration": 0.3}
    references = references_of(source(**options), range(300))
    best, entropy = references["best possible (Bayes)"], references["entropy rate"]
    task = source(**options).sample("test", 0, range(300))
    others = [bayes_bits(whole(task.support), whole(task.query), 6, 1, other) for other in (0.1, 1.0)]
    blind = bayes_bits(whole(task.support)[..., :1], whole(task.query), 6, 1, 0.3)
    assert entropy.mean() < best.mean() < min(other.mean() for other in (*others, blind))


# ---- the tasks


def test_shapes_and_next_symbols():
    task = source().sample("train", 1, range(4))
    assert task.support.x.shape == task.support.y.shape == (4, 3, 20)
    assert task.query.x.shape == (4, 2, 20)
    assert torch.equal(task.support.x[..., 1:], task.support.y[..., :-1])
    assert task.support.x.dtype == torch.int64
    assert task.support.x.unique().tolist() == [0, 1, 2, 3, 4]


def test_a_task_is_a_function_of_seed_split_step_and_number():
    all_at_once = whole(source().sample("train", 3, range(6)).query)
    parts = [whole(source().sample("train", 3, tasks).query) for tasks in (range(0, 6, 2), range(1, 6, 2))]
    assert torch.equal(all_at_once, torch.stack(parts, 1).flatten(0, 1))
    for seed, split, step in ((1, "train", 3), (0, "val", 3), (0, "train", 4)):
        assert not torch.equal(whole(source(seed=seed).sample(split, step, range(6)).query), all_at_once)
    assert not torch.equal(all_at_once[0], all_at_once[1])


def test_references_are_those_of_the_same_tasks():
    both, second = (references_of(source(), tasks) for tasks in (range(2), range(1, 2)))
    for name in both:
        torch.testing.assert_close(both[name][1:], second[name])


def test_support_and_query_speak_one_language_in_other_words():
    task = source(symbols=4, concentration=0.05, length=200).sample("test", 0, range(20))
    support, query = whole(task.support), whole(task.query)
    assert not (support[:, :2] == query).all(-1).any()
    own = bayes_bits(support, query, 4, 1, 0.05).mean()
    foreign = bayes_bits(support.roll(1, 0), query, 4, 1, 0.05).mean()
    assert own < foreign - 0.2


def test_same_keys_as_every_source():
    """The one place where keys are made: splits never overlap."""
    assert len({int(task_keys(0, split, 0, range(1), CPU)) for split in ("train", "val", "test")}) == 3
