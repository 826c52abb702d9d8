"""How tests are vectorised."""

import numpy as np
import pytest
import torch
from rich.console import Console

from fmaml.config.build import build
from fmaml.config.load import load_config
from fmaml.config.settings import EvalSettings
from fmaml.losses import inductive, transductive
from fmaml.meta_testing import scores as module
from fmaml.meta_testing.scores import batching_of_test, scores_of
from fmaml.training.finish import PROTOCOL_HEADINGS, column_heading, score_all

CPU = torch.device("cpu")


def experiment(*overrides: str):
    return build(load_config("omniglot", ["data.name=glyphs", "model.width=8", *overrides]), CPU)


@pytest.mark.parametrize(
    ("protocol", "ways", "queries", "batching"),
    [
        (transductive, 5, 5, "auto"),
        (inductive, 5, 5, "loop"),
        (inductive, 5, 4, "auto"),
        (transductive, 10, 15, "auto"),
    ],
)
def test_it_loops_over_tasks_that_keep_a_processor_busy_alone(protocol, ways, queries, batching):
    """28x28 is 784 numbers: 25 times 6 images of queries alone are many, 160 images together are not."""
    tasks = experiment(f"data.ways={ways}", f"data.queries={queries}").source.sample("test", 0, range(2))
    assert batching_of_test(protocol, tasks) == batching


def test_without_inductive_there_is_the_first_column_alone_named_as_before():
    it = experiment()
    theta = it.algorithm.init(it.model.init(torch.Generator().manual_seed(0)))
    quiet = Console(quiet=True)
    both, one = (
        score_all(quiet, None, {"maml": (it, theta)}, EvalSettings(tasks=4, steps=1, inductive=alone), {})
        for alone in (True, False)
    )
    assert list(both) == [PROTOCOL_HEADINGS["transductive"], PROTOCOL_HEADINGS["inductive"]]
    assert one == {PROTOCOL_HEADINGS["transductive"]: both[PROTOCOL_HEADINGS["transductive"]]}


def test_a_protocol_of_a_source_of_your_own_is_a_heading():
    both = {"relative_error", "mean_residual"}
    assert column_heading("maml", "relative_error", 1, both) == "relative error"
    assert column_heading("maml", "mean_residual", 2, both) == "maml, mean residual"


def test_a_source_that_is_only_tested_alone_is():
    source = experiment().source
    assert source.tested(alone=False) == (transductive,)
    assert source._replace(settings=(inductive,)).tested(alone=False) == (inductive,)


def test_looped_and_vmapped_tests_agree(monkeypatch):
    it = experiment("model.norm=group")
    theta = it.algorithm.init(it.model.init(torch.Generator().manual_seed(0)))
    used: list[str] = []
    evaluate = module.evaluate
    monkeypatch.setattr(module, "evaluate", lambda *args, **kw: used.append(kw["batching"]) or evaluate(*args, **kw))
    looped = scores_of(it, inductive, theta, "test", range(6), 2)
    monkeypatch.setattr(module, "batching_of_test", lambda *_: "vmap")
    assert torch.equal(scores_of(it, inductive, theta, "test", range(6), 2), looped)
    assert used == ["loop", "vmap"]


def test_the_interval_of_a_few_tasks_is_students():
    mean, ci95 = module.interval(torch.tensor([0.5, 0.6, 0.7]))
    assert mean == pytest.approx(0.6)
    assert ci95 == pytest.approx(4.302652730 * 0.1 / 3**0.5, rel=1e-5)


def test_tasks_without_a_mistake_have_wilsons_interval():
    mean, ci95 = module.interval(torch.ones(10), queries=25)
    assert mean == 1
    assert ci95 == pytest.approx(1.96**2 / (250 + 1.96**2))


def test_the_queries_of_a_rate_are_counted_and_other_metrics_have_none():
    assert module.judged_queries(experiment("data.ways=5", "data.queries=3").source, "test") == 15
    assert module.judged_queries(build(load_config("sinusoid"), CPU).source, "test") is None


@pytest.mark.parametrize(("tasks", "rate"), [(600, 0.9), (600, 0.999), (50, 0.5), (50, 0.99), (10, 0.99), (10, 0.999)])
def test_95_of_100_intervals_cover_the_rate(tasks, rate):
    """Tasks of 25 queries with a beta-distributed rate. Without `queries` 0.99 of 10 tasks is covered 86 times."""
    generator = np.random.default_rng(0)
    rates = generator.beta(40 * rate, 40 * (1 - rate), (1000, tasks))
    scores = torch.from_numpy(generator.binomial(25, rates) / 25)
    found = [module.interval(row, queries=25) for row in scores]
    covered = sum(abs(mean - rate) <= ci95 for mean, ci95 in found if ci95 is not None)
    assert covered >= 930
