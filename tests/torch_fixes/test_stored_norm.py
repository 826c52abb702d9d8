"""Networks with norm="stored": as torch's own running statistics in training, constants afterwards."""

import pytest
import torch
from problems import F64, doubled, image_tasks, relative
from torch import nn

import fmaml
from fmaml.tree import take

NETWORKS = {
    "conv4": (fmaml.conv4, {"inputs": (1, 16, 16), "width": 8, "pool": "max"}),
    "conv1d": (fmaml.conv1d, {"inputs": (1, 64), "width": 8}),
    "resnet12": (fmaml.resnet12, {"inputs": (1, 16, 16), "width": 4}),
}


def made(name: str, outputs: int, norm: str):
    network, settings = NETWORKS[name]
    model = network(outputs=outputs, norm=norm, **settings)
    return model, doubled(model.init(torch.Generator().manual_seed(0)))


def inputs_of(name: str, examples: int) -> torch.Tensor:
    return torch.rand(examples, *NETWORKS[name][1]["inputs"], dtype=F64)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_output_depends_on_its_own_example(name):
    model, params = made(name, 3, "stored")
    x = inputs_of(name, 4)
    alone = torch.cat([model.apply(params, x[i : i + 1]) for i in range(4)])
    assert relative(model.apply(params, x), alone) < 1e-12


def torch_conv4(params: dict[str, torch.Tensor]) -> nn.Sequential:
    """The same network of torch's layers, with its own running statistics, and without the head."""
    layers: list[nn.Module] = []
    for i in range(1, 5):
        conv, norm = nn.Conv2d(1 if i == 1 else 8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        conv.weight.data = params[f"conv{i}.weight"].clone()
        layers += [conv, norm.double(), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten()).double()


def test_pretraining_keeps_the_running_statistics_of_torch():
    model, params = made("conv4", 3, "stored")
    tasks = image_tasks(1, (1, 16, 16))
    x = torch.cat([tasks.support.x[0], tasks.query.x[0]])
    algorithm, optimizer = fmaml.pretrain(model.apply), fmaml.track_statistics(fmaml.adamw(1e-30))
    state = fmaml.init_state(algorithm, optimizer, params)
    network = torch_conv4(params)
    for _ in range(3):
        state, _ = fmaml.meta_step(algorithm, optimizer, state, tasks)
        network(x)
    for i in range(1, 5):
        norm = network[4 * (i - 1) + 1]
        assert relative(state.theta[f"norm{i}.running_mean"], norm.running_mean) < 1e-12
        assert relative(state.theta[f"norm{i}.running_var"], norm.running_var) < 1e-12
    features = network.eval()(x).detach()
    head = {"head.weight": torch.eye(8, dtype=F64), "head.bias": torch.zeros(8, dtype=F64)}
    assert relative(model.apply({**state.theta, **head}, x), features) < 1e-12


@pytest.mark.parametrize("name", ["conv4", "resnet12"])
def test_pretraining_has_the_gradient_of_batch_norm(name):
    stored, params = made(name, 3, "stored")
    batch, _ = made(name, 3, "batch")
    tasks = image_tasks(2, (1, 16, 16))
    plain = {key: value for key, value in params.items() if "running" not in key}
    found = fmaml.meta_grad(fmaml.pretrain(stored.apply), params, tasks)[0]
    expected = fmaml.meta_grad(fmaml.pretrain(batch.apply), plain, tasks)[0]
    assert relative({key: found[key] for key in plain}, expected) < 1e-12
    looped = fmaml.meta_grad(fmaml.pretrain(stored.apply), params, tasks, batching="loop")[0]
    assert relative(found, looped) < 1e-12


def test_statistics_stay_in_meta_training_whatever_the_optimizer():
    model, params = made("conv4", 3, "stored")
    params = {key: value - 0.1 * ("running" in key) for key, value in params.items()}
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=2)
    optimizer = fmaml.track_statistics(fmaml.adamw(0.1, weight_decay=0.5))
    tasks = image_tasks(3, (1, 16, 16))
    state, _ = fmaml.meta_step(algorithm, optimizer, fmaml.init_state(algorithm, optimizer, params), tasks)
    phi = algorithm.adapt(state.theta, take(tasks, 0).support)
    for name, before in params.items():
        stays = "running" in name
        assert torch.equal(state.theta[name], before) == stays
        assert torch.equal(phi[name], before) == stays


def test_meta_gradients_are_those_of_a_network_with_the_statistics_as_numbers():
    """Stored statistics are a scale and a shift of each channel, to second order."""
    model, params = made("conv4", 3, "stored")
    params = {key: value - 0.1 * ("running" in key) for key, value in params.items()}
    tasks = image_tasks(3, (1, 16, 16))

    def by_hand(theta, x):
        for i in range(1, 5):
            x = nn.functional.conv2d(x, theta[f"conv{i}.weight"], padding=1)
            mean, variance = (params[f"norm{i}.running_{kind}"][:, None, None] for kind in ("mean", "var"))
            x = (x - mean) / (variance + 1e-5).sqrt()
            x = x * theta[f"norm{i}.weight"][:, None, None] + theta[f"norm{i}.bias"][:, None, None]
            x = nn.functional.max_pool2d(torch.relu(x), 2)
        return x.flatten(1) @ theta["head.weight"].T + theta["head.bias"]

    plain = {key: value for key, value in params.items() if "running" not in key}
    ours, theirs = (
        fmaml.meta_grad(fmaml.maml(fmaml.supervised(apply, fmaml.cross_entropy), inner_lr=0.1, steps=2), theta, tasks)
        for apply, theta in ((model.apply, params), (by_hand, plain))
    )
    assert relative({key: ours[0][key] for key in plain}, theirs[0]) < 1e-10
    assert all((ours[0][key] == 0).all() for key in params if "running" in key)
