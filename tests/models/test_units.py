"""Models of tables and signals take and give the units of their data: as if one had scaled them by hand."""

from dataclasses import replace

import pytest
import torch
from learners import MAML, untrained

from fmaml.errors import Error
from fmaml.export.standalone import adapted_network, example
from fmaml.torch_fixes.support_statistics import statistics_of

MLP = {"name": "mlp", "hidden": [8]}
UNITS = {
    **{"x_mean": [1980.0, 3e4], "x_scale": [17.0, 1e4], "y_mean": 60.0, "y_scale": 12.0},
    **{"columns": ["year", "wealth"], "target": "age"},
}
TABLE = {"inputs": [2], "outputs": 1, "targets": "values", "form": None, "scaling": UNITS}


def test_adapting_and_predicting_in_units_is_scaling_by_hand():
    learner = untrained(MLP, MAML, **TABLE)
    plain = replace(learner, blueprint=replace(learner.blueprint, scaling=None))
    seen, asked = torch.randn(6, 2), torch.randn(9, 2)
    mean, scale = torch.tensor(UNITS["x_mean"]), torch.tensor(UNITS["x_scale"])
    y = torch.randn(6, 1)
    by_hand = plain.adapt(seen, y).outputs(asked) * 12 + 60
    found = learner.adapt(seen * scale + mean, y * 12 + 60).outputs(asked * scale + mean)
    assert torch.allclose(found, by_hand, atol=1e-3)


def test_an_export_has_the_units_too():
    learner = untrained(MLP, MAML, **TABLE)
    x = example(learner.blueprint, 7)
    assert float((x[:, 0] - 1980).abs().max()) < 100
    adapted = learner.adapt(x, 60 + torch.randn(7, 1))
    assert torch.allclose(adapted_network(adapted).network(x)["values"], adapted.outputs(x))


def test_class_numbers_stay_as_they_are_and_signals_are_scaled_by_channel():
    units = {"x_mean": [[5.0], [100.0]], "x_scale": [[1.0], [10.0]], "columns": []}
    signals = {"inputs": [2, 16], "outputs": 3, "targets": "classes", "form": None, "scaling": units}
    learner = untrained({"name": "conv1d", "width": 8, "layers": 3}, MAML, **signals)
    x, y = example(learner.blueprint, 6), torch.arange(3).repeat(2)
    plain = replace(learner, blueprint=replace(learner.blueprint, scaling=None))
    seen = (x - torch.tensor([[5.0], [100.0]])) / torch.tensor([[1.0], [10.0]])
    by_hand = plain.adapt(seen, y)
    found = learner.adapt(x, y)
    assert torch.allclose(found.predict(x).probabilities, by_hand.predict(seen).probabilities, atol=1e-5)
    assert len(found.statistics) == len(statistics_of(learner.for_outputs(3)[0].model.apply, found.params, seen))


@pytest.mark.parametrize(
    "damage",
    [
        {"x_mean": [1.0]},
        {"x_scale": [1.0, 0.0]},
        {"x_scale": [1.0, float("inf")]},
        {"x_mean": [[1.0], [2.0]]},
        {"y_scale": -1.0},
        {"y_mean": float("nan")},
        {"y_mean": "60"},
        {"columns": None},
        {"unknown": 1},
    ],
    ids=str,
)
def test_metadata_with_another_scaling_are_refused(damage):
    with pytest.raises(Error, match="its metadata are not those of a model"):
        untrained(MLP, MAML, **{**TABLE, "scaling": {**UNITS, **damage}})
