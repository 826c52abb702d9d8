"""Testing a theta: as many tasks in one call as memory and caches allow, and the same scores for any number."""

import pytest
import torch

from fmaml.config.build import build
from fmaml.config.load import load_config
from fmaml.losses import transductive
from fmaml.meta_testing.scores import task_ranges, task_scores, tasks_at_once

CPU = torch.device("cpu")


@pytest.fixture
def experiment():
    return build(load_config("sinusoid", []), CPU)


@pytest.mark.parametrize("chunk", [1, 3, None])
def test_scores_are_the_same_for_any_number_of_tasks_in_one_call(experiment, chunk):
    theta = experiment.algorithm.init(experiment.model.init(torch.Generator().manual_seed(0)))
    found, together = (task_scores(experiment, transductive, theta, "test", 7, 2, size) for size in (chunk, 7))
    assert found.shape == (7, 3)
    torch.testing.assert_close(found, together, rtol=1e-5, atol=1e-6)


def test_ranges_are_all_tasks_in_order():
    assert [list(part) for part in task_ranges(7, 3)] == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize(("inputs", "count"), [((1,), 16), ((1, 28, 28), 16), ((3, 32, 32), 4), ((3, 84, 84), 1)])
def test_fewer_large_images_are_tested_at_once(experiment, inputs, count):
    assert tasks_at_once(experiment.source._replace(inputs=inputs)) == count
