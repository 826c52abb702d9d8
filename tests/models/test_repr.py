"""A learner, an adapted network, a prediction and a meta-state are shown in one line."""

import doctest

import pytest
import torch
from learners import CONV4, MAML, untrained

import fmaml


def of_classes(names: list[str]) -> fmaml.Adapted:
    return untrained(CONV4, MAML).adapt({name: torch.rand(1, 1, 28, 28) for name in names})


def test_a_learner_says_its_name_its_algorithm_its_network_and_its_task():
    assert repr(fmaml.load("photographs")) == "Learner(photographs, pretrain on resnet12, 5-way 5-shot)"
    assert repr(untrained(CONV4, MAML)) == "Learner(untrained, maml on conv4)"


def test_an_adapted_network_says_its_classes():
    adapted = of_classes(["g", "a", "k"])
    assert repr(adapted) == "Adapted(untrained, 3 classes: a, g, k)"
    assert repr(adapted.predict(torch.rand(1, 1, 28, 28))).startswith("Prediction(1 example: ")
    assert repr(fmaml.Prediction(["a", "b", "a"], torch.eye(3))) == "Prediction(3 examples: a, b, a)"


def test_a_network_for_values_says_how_many():
    adapted = fmaml.load("sinusoid").adapt(torch.zeros(5, 1), torch.zeros(5, 1))
    assert repr(adapted) == "Adapted(sinusoid, 1 output)"


@pytest.mark.parametrize("names", [[f"class {i}" for i in range(50)], ["a" * 500, "b" * 500], ["a\nb", "\x1b[31mc"]])
def test_names_are_shown_in_one_line_that_fits(names):
    line = repr(of_classes(names))
    assert len(line) < 130
    assert line.isprintable()


def test_a_meta_state_says_its_step_and_size():
    state = fmaml.MetaState({"w": torch.zeros(30, 40), "b": torch.zeros(30)}, opt_state=(), step=7)
    assert repr(state) == "MetaState(step 7, theta: 2 tensors, 1,230 numbers)"


def test_the_examples_of_the_methods_run():
    (example,) = doctest.DocTestFinder(recurse=False).find(fmaml.Learner.adapt, globs={})
    assert doctest.DocTestRunner().run(example).failed == 0
