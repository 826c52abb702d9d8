"""`FewShotClassifier` does what scikit-learn expects of a classifier."""

import pickle
import subprocess
import sys
from typing import Any, cast

import numpy as np
import pytest
import torch
from learners import CONV4, MAML, PROTONET, untrained
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

import fmaml
from fmaml import FewShotClassifier
from fmaml.errors import Error
from fmaml.models import sklearn as deployed

MLP = {"name": "mlp", "hidden": [64]}
SIDE = 28


class OfAnyWidth(FewShotClassifier):
    """One that fits arrays of every width, as scikit-learn's checks give them: with a network made for each."""

    def fit(self, X, y):
        width = getattr(X, "data", X).shape[-1] if hasattr(X, "shape") or hasattr(X, "data") else len(X[0])
        learner = untrained(MLP, {**PROTONET, "head": "layer2"}, form=None, inputs=[max(1, width)])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deployed, "load", lambda model, **options: learner)
            return super().fit(X, y)


@parametrize_with_checks([OfAnyWidth()])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The file of a learner with inner steps, that of prototypes beside it."""
    folder = tmp_path_factory.mktemp("models")
    untrained(CONV4, PROTONET).save(folder / "protonet.safetensors")
    untrained(CONV4, MAML).save(folder / "maml.safetensors")
    return folder


@pytest.fixture
def drawings():
    """Drawings uint8 [15, 28, 28] of three classes, white with a dark bar in a place of its own, and their names."""
    images = np.full((15, SIDE, SIDE), 255, dtype=np.uint8)
    for i in range(15):
        images[i, 4 : 24 - i // 3, 3 + 8 * (i % 3) : 7 + 8 * (i % 3)] = 10 * (i // 3)
    return images, np.array(["left", "middle", "right"])[np.arange(15) % 3]


def as_numbers(drawings: np.ndarray) -> np.ndarray:
    """Ink 1 on 0, [n, 1, 28, 28], as the network was trained."""
    return (255 - drawings[:, None].astype(float)) / 255


def test_every_form_of_the_same_images_gives_the_same(model, drawings, tmp_path):
    images, y = drawings
    files = [str(tmp_path / f"{i}.png") for i in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    numbers = as_numbers(images)
    fitted = FewShotClassifier(model / "protonet.safetensors").fit(numbers, y)
    wanted = fitted.predict_proba(numbers)
    assert wanted.shape == (15, 3)
    assert wanted.std() > 0.01
    forms = [
        numbers.reshape(15, -1),
        numbers.astype(np.float32),
        torch.tensor(numbers),
        list(numbers),
        images,
        np.repeat(images[..., None], 3, -1),
        list(images),
        [Image.fromarray(image) for image in images],
        files,
        np.array(files),
        np.array(files, dtype=object)[:, None],
    ]
    for form in forms:
        again = cast(FewShotClassifier, clone(fitted)).fit(form, y)
        assert again.n_features_in_ == SIDE * SIDE
        np.testing.assert_allclose(again.predict_proba(form), wanted, atol=1e-5)
        np.testing.assert_allclose(fitted.predict_proba(form), wanted, atol=1e-5)


def test_it_predicts_what_the_learner_predicts(model, drawings):
    images, y = drawings
    classifier = FewShotClassifier(model / "maml.safetensors", steps=3).fit(as_numbers(images), y)
    x = torch.tensor(as_numbers(images), dtype=torch.float32)
    support = {name: x[torch.tensor(y == name)] for name in ("left", "middle", "right")}
    prediction = fmaml.load(model / "maml.safetensors").adapt(support, steps=3).predict(x)
    assert classifier.classes_.tolist() == ["left", "middle", "right"]
    assert classifier.predict(images).tolist() == prediction.labels
    np.testing.assert_allclose(classifier.predict_proba(images), prediction.probabilities.numpy(), atol=1e-5)


def test_cross_validation_in_two_processes(model, drawings):
    images, y = drawings
    classifier = FewShotClassifier(model / "protonet.safetensors")
    alone = cross_val_score(classifier, images, y, cv=3)
    found = cross_validate(classifier, images, y, cv=3, n_jobs=2, return_estimator=True)
    assert found["test_score"].tolist() == alone.tolist()
    assert alone.mean() > 0.9
    assert all(fitted.predict(images).shape == (15,) for fitted in found["estimator"])


def test_a_search_over_steps_in_a_pipeline(model, drawings):
    images, y = drawings
    pipeline = make_pipeline(FunctionTransformer(lambda X: X * 1.0), FewShotClassifier(model / "maml.safetensors"))
    search = cast(Any, GridSearchCV)(pipeline, {"fewshotclassifier__steps": [0, 1, 5]}, cv=3, error_score="raise")
    search.fit(as_numbers(images).reshape(15, -1), y)
    scores = search.cv_results_["mean_test_score"]
    assert search.best_params_["fewshotclassifier__steps"] in (1, 5)
    assert scores[0] < scores.max()


def test_pickle_after_a_prediction(model, drawings):
    images, y = drawings
    classifier = FewShotClassifier(model / "protonet.safetensors").fit(images, y)
    wanted = classifier.predict_proba(images)
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict_proba(images), wanted)
    assert again.get_params() == classifier.get_params()


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((4, 10)), [0, 1, 0, 1], "X has 10 features, but this model takes 784, of shape [1, 28, 28]"),
        (np.zeros((4, 784)), [1, 1, 1, 1], "y has one class, 1; to tell classes apart it takes two or more"),
        (np.zeros((4, 784), np.uint8), [0, 1, 0, 1], "X is uint8 without the axes of images"),
        (np.zeros((4, 28, 28), np.uint8), [0, 1, 0], "inconsistent numbers of samples"),
    ],
)
def test_mistakes_say_what_is_wrong(X, y, message, model):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        FewShotClassifier(model / "protonet.safetensors").fit(X, y)
    assert message in str(error.value)


def test_settings_that_do_not_fit_are_refused(model, drawings, tmp_path):
    images, y = drawings
    with pytest.raises(ValueError, match="steps = -1: must be 0 or more"):
        FewShotClassifier(model / "maml.safetensors", steps=-1).fit(images, y)
    untrained(MLP, MAML, inputs=[1], outputs=1, targets="values", form=None).save(tmp_path / "values")
    with pytest.raises(ValueError, match="was trained for values; give one trained for classes"):
        FewShotClassifier(tmp_path / "values").fit(images, y)
    with pytest.raises(Error, match="no such file, and no model of that name"):
        FewShotClassifier("nothing").fit(images, y)


def test_fmaml_imports_no_scikit_learn_by_itself():
    code = "import sys, fmaml; fmaml.load; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


WITHOUT_SKLEARN = """
import sys
sys.modules["sklearn"] = None  # as if it were not installed
import fmaml.errors
from fmaml import *
try:
    FewShotClassifier("omniglot")
except fmaml.errors.Error as error:
    print(error)
"""


def test_without_scikit_learn_the_rest_goes_on_and_the_class_says_what_to_install():
    said = subprocess.check_output([sys.executable, "-c", WITHOUT_SKLEARN], text=True)
    assert said == "FewShotClassifier: needs sklearn; pip install 'fmaml[sklearn]' installs it\n"


def test_verbose_prints_the_pictures_that_were_found(capsys, tmp_path):
    """Of file names, of arrays and of numbers; nothing without it; and a copy prints as well."""
    rng = np.random.default_rng(0)
    shapes, labels = [(40, 30), (40, 30), (20, 20)], ["cat", "dog", "dog"]
    drawings = [np.full(shape, 255, np.uint8) for shape in shapes]  # white paper
    for drawing in drawings:
        drawing[8:12, 5:15] = rng.integers(0, 60, (4, 10))
    files = [str(tmp_path / f"{i}.png") for i in range(3)]
    for file, drawing in zip(files, drawings, strict=True):
        Image.fromarray(drawing).save(file)
    loud = cast(FewShotClassifier, clone(FewShotClassifier("omniglot_prototypes", verbose=True)))
    for form in (files, [Image.fromarray(drawing) for drawing in drawings], drawings):
        loud.fit(form, labels)
        first, second = capsys.readouterr().err.splitlines()
        assert first == "fmaml: 2 classes, 3 pictures: 1 (cat) to 2 (dog) of each; 20x20 to 30x40 pixels, grey"
        assert second == "fmaml: values 0 to 1 as the network sees them; ink is 1 on paper of 0, as in training"
    paper = np.ones((3, 1, 28, 28), np.float32)
    paper[:, :, 10:14, 10:20] = 0.25
    loud.fit(paper, labels)
    assert capsys.readouterr().err.splitlines() == [
        "fmaml: 2 classes, 3 examples: 1 (cat) to 2 (dog) of each",
        "fmaml: values 0.25 to 1 as the network sees them; "
        "in 3 of 3 the paper is 1, but in training ink was 1: give 1 - x",
    ]
    FewShotClassifier("omniglot_prototypes").fit(files, labels)
    assert capsys.readouterr().err == ""
