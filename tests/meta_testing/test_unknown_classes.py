"""Calibration by validation tasks, and the measures of a test for other classes."""

from typing import Any

import pytest
import torch

from fmaml.cli.evaluate import as_experiment, config_of_test
from fmaml.config.build import Experiment, call_by_name
from fmaml.config.settings import EvalSettings
from fmaml.meta_testing.unknown_classes import answers, calibrate, calibrated, measure
from fmaml.models.load import load_for_test

CPU = torch.device("cpu")


def trained(name: str, *overrides: str) -> tuple[Experiment, Any]:
    """A model that comes with fmaml, on other data."""
    learner = load_for_test(name)
    config = config_of_test(learner, name, list(overrides))
    source = call_by_name("data", config["data"], seed=0, device=CPU)
    return as_experiment(learner, source, config, CPU)


@pytest.fixture(scope="module")
def prototypes():
    return trained("omniglot_prototypes", "data.name=glyphs")


def of_all(found, name: str) -> torch.Tensor:
    return torch.cat([getattr(each, name) for each in found])


def test_the_share_of_refused_validation_queries_is_the_requested_one(prototypes):
    experiment, theta = prototypes
    calibration = calibrate(experiment, theta, steps=0, tasks=20)
    assert calibration
    assert calibration.directions, "of images"
    known = of_all(answers(experiment, theta, "val", 0, 20, directions=True), "known")
    for reject in (0.02, 0.05, 0.2):
        share = (known > calibration.limit(reject)).double().mean().item()
        assert share == pytest.approx(reject, abs=1 / len(known))


def test_other_classes_are_farther_and_refused_more_often(prototypes):
    experiment, theta = prototypes
    found = calibrated(experiment, theta, EvalSettings(tasks=20, steps=0))
    mean, ci95 = found["auroc"]
    assert mean - ci95 > 0.8
    assert found["refused"][1] > 5 * found["refused"][0]
    assert found["tasks"] == 20


def test_unknown_queries_are_of_no_class_of_the_task(prototypes):
    """Of the next task's queries, those of a shared class are left out."""
    experiment, theta = prototypes
    source = experiment.source
    assert source.classes_of
    tasks = 30
    names = source.classes_of("val", 0, range(tasks + 1))
    queries = len(source.sample("val", 0, range(1)).query.y[0]) // 5
    shared = [len(set(names[i]) & set(names[i + 1])) for i in range(tasks)]
    assert any(shared), "or the test shows nothing"
    found = answers(experiment, theta, "val", 0, tasks, directions=True)
    assert [len(each.unknown) for each in found] == [queries * (5 - common) for common in shared]


def test_logits_that_are_scaled_get_the_temperature_of_the_scale(prototypes):
    experiment, theta = prototypes
    apply = experiment.model.apply
    plain = calibrate(experiment, theta, 0, 10)
    louder = experiment._replace(model=experiment.model._replace(apply=lambda params, x: 3 * apply(params, x)))
    scaled = calibrate(louder, theta, 0, 10)
    assert plain
    assert scaled
    assert scaled.temperature == pytest.approx(3 * plain.temperature, rel=1e-4)
    after = [measure(each, theta, 0, 10, found) for each, found in ((experiment, plain), (louder, scaled))]
    assert after[0]
    assert after[1]
    assert after[1].ece[1] == pytest.approx(after[0].ece[1], abs=1e-4)
    assert after[1].ece[0] > after[0].ece[0]


def test_test_tasks_have_no_part_in_the_calibration(prototypes):
    experiment, theta = prototypes
    asked = []

    def sample(split, step, tasks):
        asked.append(split)
        return experiment.source.sample(split, step, tasks)

    calibrate(experiment._replace(source=experiment.source._replace(sample=sample)), theta, 0, 3)
    assert set(asked) == {"val"}


def test_answers_are_those_of_the_adapted_model():
    """Each query is judged as a user's picture: alone, by the statistics of the support set."""
    learner = load_for_test("omniglot")
    experiment, theta = trained("omniglot", "data.name=glyphs")
    (found,) = answers(experiment, theta, "val", learner.metadata["steps"], 1, directions=True)
    task = experiment.source.sample("val", 0, range(1))
    adapted = learner.adapt(task.support.x[0], task.support.y[0])
    torch.testing.assert_close(found.logits, adapted.outputs(task.query.x[0]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.known, adapted.distances(task.query.x[0]), rtol=1e-3, atol=1e-3)


def test_tasks_of_different_sizes():
    experiment, theta = trained("omniglot_prototypes", "data.name=glyphs", "data.ways=[3,6]", "data.queries=[1,4]")
    found = calibrated(experiment, theta, EvalSettings(tasks=12, steps=0))
    assert found["ece"][1] < 0.2
    logits = of_all(answers(experiment, theta, "val", 0, 12, directions=True), "logits")
    assert logits.shape[1] == 6
    assert bool((logits.softmax(1)[:, 3:] == 0).any()), "a class that the task lacks has no probability"


def test_without_other_classes_there_is_no_auroc(prototypes):
    experiment, theta = prototypes
    one_task = experiment.source._replace(classes_of=lambda split, step, tasks: [list("abcde")] * len(tasks))
    found = calibrated(experiment._replace(source=one_task), theta, EvalSettings(tasks=3, steps=0))
    assert found["auroc"] is None
    assert found["refused"][1] is None


def test_values_and_classes_without_names_are_not_calibrated(prototypes):
    experiment, theta = prototypes
    unnamed = experiment._replace(source=experiment.source._replace(classes_of=None))
    assert calibrated(unnamed, theta, EvalSettings(tasks=3, steps=0)) == {}
    assert calibrated(*trained("sinusoid"), EvalSettings(tasks=3, steps=1)) == {}


def test_a_network_that_diverges_is_not_calibrated(prototypes):
    experiment, theta = prototypes
    apply = experiment.model.apply
    broken = experiment.model._replace(apply=lambda params, x: apply(params, x) * float("nan"))
    assert calibrated(experiment._replace(model=broken), theta, EvalSettings(tasks=2, steps=0)) == {}
