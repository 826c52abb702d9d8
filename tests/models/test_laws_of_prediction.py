"""Prediction is inductive: an output depends on the support set and on its own example alone, for all that ships."""

import pytest
import torch
from learners import CONV4, RATES, untrained
from torch import nn

import fmaml
from fmaml.config.registry import TABLE
from fmaml.errors import Error
from fmaml.evaluation import trajectory_of
from fmaml.models.resize_head import head_of, with_outputs
from fmaml.torch_fixes.norms import batch_norm
from fmaml.torch_fixes.support_statistics import statistics_of, with_statistics

NETWORKS = [{**CONV4, "pool": pool, "norm": norm} for pool in ("stride", "max") for norm in ("batch", "layer", "none")]
NETWORKS += [{"name": "conv4", "width": 16, "norm": "group"}, {"name": "mlp", "hidden": [8]}]
NETWORKS += [{"name": "resnet12", "width": 4}]
OWN_SETTINGS = {
    "cavia": {**RATES, "context": 3},
    "warpgrad": RATES,
    "protonet": {},
    "r2d2": {},
    "streamed": {**RATES, "chunks": 2},
    "joint": RATES,
    "scratch": RATES,
}
ALGORITHMS = sorted(TABLE["algorithm"])


def settings_of(name: str) -> dict:
    from fmaml.config.signature import REQUIRED
    from fmaml.config.validate import section_settings

    taken = section_settings("algorithm", {"name": name})
    assert taken is not None
    known = {**RATES, **OWN_SETTINGS.get(name, {})}
    needed = {key: known[key] for key, setting in taken.items() if setting.default is REQUIRED and key in known}
    return {"name": name, **needed}


def task(ways: int = 5, shots: int = 2, queries: int = 7) -> tuple[fmaml.Batch, torch.Tensor]:
    x = torch.rand(ways * shots, 1, 28, 28, dtype=torch.float64)
    return fmaml.Batch(x, torch.arange(ways).repeat_interleave(shots)), torch.rand(queries, 1, 28, 28).double()


def assert_inductive(learner, support, x):
    adapted = learner.adapt(support.x, support.y)
    together = adapted.outputs(x)
    assert together.shape == (len(x), int(support.y.max()) + 1)
    for i in range(len(x)):
        assert torch.allclose(adapted.outputs(x[i : i + 1])[0], together[i], rtol=0, atol=1e-12)
    others = torch.cat([x[:1], 100 * torch.rand(5, 1, 28, 28).double()])
    assert torch.allclose(adapted.outputs(others)[0], together[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", NETWORKS, ids=lambda m: "-".join(map(str, m.values())))
def test_one_image_is_told_as_it_is_among_many(model):
    assert_inductive(untrained(model, settings_of("maml"), torch.float64), *task())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_whatever_adapted_the_network(algorithm):
    assert_inductive(untrained(CONV4, settings_of(algorithm), torch.float64), *task())


@pytest.mark.parametrize("pool", ["stride", "max"])
def test_the_support_set_itself_is_told_as_in_the_inner_loop(pool):
    """Its own statistics are those of the batch, so nothing changes for it."""
    learner = untrained({**CONV4, "pool": pool}, settings_of("maml"), torch.float64)
    support, _ = task()
    adapted = learner.adapt(support.x, support.y)
    model = learner.blueprint.build(5).model
    assert torch.allclose(adapted.outputs(support.x), model.apply(adapted.params, support.x), rtol=0, atol=1e-12)


def test_statistics_are_those_that_torch_would_have_stored():
    norm = nn.BatchNorm2d(3, momentum=1.0).double()
    x, other = torch.rand(4, 3, 5, 5).double(), torch.rand(2, 3, 5, 5).double()
    norm(x)
    count = x.numel() / 3
    assert norm.running_var is not None
    norm.running_var.mul_((count - 1) / count)  # torch stores the unbiased variance
    norm.eval()

    def apply(params, x):
        return batch_norm(x, params["weight"], params["bias"])

    params = {name: value.detach() for name, value in norm.named_parameters()}
    given = with_statistics(apply, statistics_of(apply, params, x))
    assert torch.allclose(given(params, other), norm(other), rtol=0, atol=1e-12)


def test_a_module_of_ones_own_is_inductive_too():
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)).double()
    module(torch.rand(2, 1, 8, 8).double())
    model = fmaml.from_module(module, running_stats="batch")
    params, x = model.init(torch.Generator()), torch.rand(6, 1, 8, 8).double()
    given = with_statistics(model.apply, statistics_of(model.apply, params, torch.rand(3, 1, 8, 8).double()))
    assert torch.allclose(given(params, x[:1]), given(params, x)[:1], rtol=0, atol=1e-12)
    assert not torch.allclose(model.apply(params, x[:3])[:1], model.apply(params, x)[:1])


def test_statistics_must_be_as_many_as_the_norms():
    model = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=8)
    params, x = model.init(torch.Generator()), torch.rand(2, 1, 28, 28)
    statistics = statistics_of(model.apply, params, x)
    with pytest.raises(ValueError, match="more norms than the 3"):
        with_statistics(model.apply, statistics[:3])(params, x)
    with pytest.raises(ValueError, match="1 of 5 statistics were not used"):
        with_statistics(model.apply, [*statistics, statistics[0]])(params, x)
    assert torch.equal(model.apply(params, x), model.apply(params, x))  # and nothing is left behind


@pytest.mark.parametrize("algorithm", ["protonet", "r2d2", "proto_maml", "proto_mamlpp", "maml", "meta_sgd", "lslr"])
@pytest.mark.parametrize("ways", [2, 9])
def test_any_number_of_classes(algorithm, ways):
    assert_inductive(untrained(CONV4, settings_of(algorithm), torch.float64), *task(ways))


def test_fewer_classes_are_told_as_if_the_others_were_absent():
    learner = untrained(CONV4, settings_of("maml"), torch.float64)
    support, x = task(3)
    whole = learner.blueprint.build(5)
    phi = trajectory_of(whole.algorithm, learner.theta, support, 2)[-1]
    apply = with_statistics(whole.model.apply, statistics_of(whole.model.apply, phi, support.x))
    assert torch.allclose(learner.adapt(support.x, support.y).outputs(x), apply(phi, x)[:, :3], rtol=0, atol=1e-12)


def test_more_classes_begin_as_prototypes():
    learner = untrained(CONV4, settings_of("maml"), torch.float64)
    prototypes = untrained(CONV4, settings_of("protonet"), torch.float64)
    support, x = task(8)
    ours = learner.adapt(support.x, support.y, steps=0)
    theirs = prototypes.adapt(support.x, support.y)
    assert torch.allclose(ours.outputs(x), theirs.outputs(x), rtol=0, atol=1e-12)


def test_what_was_learnt_for_a_number_of_classes_is_refused_for_another():
    support, _ = task(7)
    with pytest.raises(Error, match="7 classes: meta_curvature was trained for 5"):
        untrained(CONV4, settings_of("meta_curvature"), torch.float64).adapt(support.x, support.y)


def test_the_head_is_what_changes_its_width():
    one, other = (fmaml.mlp(inputs=(2,), outputs=n, hidden=[3]).init(torch.Generator()) for n in (5, 7))
    assert head_of(one, other) == "layer2"
    assert with_outputs(one, other)["layer2.weight"].shape == (7, 3)
