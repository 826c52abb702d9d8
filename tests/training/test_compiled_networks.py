"""The meta-gradient of each kind of network, compiled by inductor, is the uncompiled one; by hand (`-m slow`)."""

import pytest
import torch
from problems import doubled, image_tasks, relative
from torch import nn

import fmaml
from fmaml import Batch, Task

IMAGE = (1, 20, 20)


def passages() -> Task:
    return Task(*(Batch(torch.randint(0, 5, (3, n, 8)), torch.randint(0, 5, (3, n, 8))) for n in (2, 3)))


def module() -> fmaml.Model:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    return fmaml.from_module(nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(1296, 3)))


NETWORKS = {
    **{
        f"conv4-stride-{norm}": fmaml.conv4(inputs=IMAGE, outputs=3, width=16, norm=norm) for norm in ("batch", "group")
    },
    "conv4-max-layer": fmaml.conv4(inputs=IMAGE, outputs=3, width=8, pool="max", norm="layer"),
    "conv1d": fmaml.conv1d(inputs=(2, 40), outputs=3, width=8),
    "resnet12": fmaml.resnet12(inputs=IMAGE, outputs=3, width=2),
    "transformer": fmaml.transformer(inputs=(8,), outputs=5, width=8, heads=2, layers=1),
    "module": module(),
}
SHAPES = {"conv1d": (2, 40)}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_inductor_makes_the_same_meta_gradient(name):
    model = NETWORKS[name]
    tasks = passages() if name == "transformer" else image_tasks(3, SHAPES.get(name, IMAGE))
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=2)
    theta = doubled(model.init(torch.Generator().manual_seed(0)))
    torch._dynamo.reset()
    found = torch.compile(lambda theta: fmaml.meta_grad(algorithm, theta, tasks)[0], fullgraph=True)(theta)
    assert relative(found, fmaml.meta_grad(algorithm, theta, tasks)[0]) < 1e-11
