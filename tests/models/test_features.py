"""Features are the inputs of the head: with the head's weights they give the outputs."""

import numpy as np
import pytest
import torch
from learners import CONV4, MAML, PROTONET, untrained
from PIL import Image

import fmaml
from fmaml.models.features import head_of_network

X = torch.rand(6, 1, 28, 28)
Y = torch.tensor([0, 0, 1, 1, 2, 2])
R2D2 = {"name": "r2d2"}
META_SGD = {"name": "meta_sgd", "inner_lr": 0.1, "steps": 2}


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("algorithm", [MAML, PROTONET, R2D2, META_SGD])
def test_the_outputs_are_the_head_of_the_features(algorithm, norm):
    adapted = untrained({**CONV4, "norm": norm}, algorithm).adapt(X, Y)
    features = adapted.features(X)
    assert features.shape == (6, 8)
    expected = features @ adapted.params["head.weight"].T + adapted.params["head.bias"]
    assert torch.allclose(adapted.outputs(X), expected, atol=1e-5)
    assert torch.allclose(adapted.features(X[3:4]), features[3:4], atol=1e-5)  # of each alone


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_prototypes_are_the_means_of_a_learners_features(norm):
    learner = untrained({**CONV4, "norm": norm}, PROTONET)
    features = learner.features(X)
    means = torch.stack([features[i == Y].mean(0) for i in range(3)])
    adapted = learner.adapt(X, Y)
    assert torch.allclose(adapted.params["head.weight"], 2 * means, atol=1e-5)
    assert torch.allclose(adapted.features(X), features, atol=1e-5)


def test_without_batch_norm_each_image_is_alone_however_many_there_are(monkeypatch):
    learner = untrained({**CONV4, "norm": "layer"}, PROTONET)
    features = learner.features(X)
    assert torch.allclose(learner.features(X[:1]), features[:1], atol=1e-6)
    monkeypatch.setattr("fmaml.models.features.EXAMPLES_AT_ONCE", 4)
    assert torch.allclose(learner.features(X), features, atol=1e-6)


def test_pictures_are_read_as_by_predict(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    learner = untrained({**CONV4, "norm": "layer"}, PROTONET)
    x = 1 - torch.from_numpy(pixels).float()[None, None] / 255  # dark ink on light
    expected = learner.features(x)
    for given in (tmp_path / "one.png", tmp_path, Image.fromarray(pixels), [pixels]):
        assert torch.allclose(learner.features(given, ink="dark"), expected, atol=1e-5)


def test_numbers_are_in_the_units_of_their_file():
    facts = {"inputs": [1, 12], "form": None}
    network = {"name": "conv1d", "width": 8, "layers": 2, "norm": "layer"}
    plain = untrained(network, PROTONET, **facts)
    scaled = untrained(network, PROTONET, **facts, scaling={"x_mean": [[10.0]], "x_scale": [[4.0]], "columns": []})
    x = torch.rand(3, 1, 12)
    assert torch.allclose(scaled.features(4 * x + 10), plain.features(x), atol=1e-5)


def test_a_network_without_a_head_says_so():
    blueprint = untrained(CONV4, MAML).blueprint
    with pytest.raises(ValueError, match=r"model\.name = conv4 has no linear layer head; name its last layer head"):
        head_of_network(blueprint, {"last.weight": torch.ones(1, 1)})


def test_features_of_a_shipped_model_tell_its_classes_apart():
    learner = fmaml.load("omniglot_prototypes")
    support = learner.features("docs/letters/support/a")
    assert support.ndim == 2
    assert support.isfinite().all()
