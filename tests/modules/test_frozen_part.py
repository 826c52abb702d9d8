"""A module's frozen part and the rest give the module's output, and only such modules are split."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fmaml
from fmaml.modules.frozen_part import NoFeaturesError, split_frozen

X = torch.rand(3, 2, 9, 9, dtype=torch.float64)


class Network(nn.Module):
    """A convolution, a norm with running statistics, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.classifier = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

    def pooled(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu().mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pooled(x))


class ReadsItsImages(Network):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1e-6 * x.mean()


class UsesItsWeightBefore(Network):
    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pooled(x) * next(self.classifier[2].parameters()).sum())


class DoesNotCallItsHead(Network):
    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.classifier[2].parameters()
        return F.linear(self.pooled(x) @ next(self.classifier[0].parameters()).T, weight, bias)


class CallsItsHeadTwice(Network):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + super().forward(2 * x)


class Scaled(Network):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * super().forward(x)


def in_a_row() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
        nn.ReLU(),
        nn.Linear(5, 3),
    )


def with_a_last_softmax() -> nn.Module:
    return nn.Sequential(Network(), nn.LogSoftmax(-1))


def with_a_shared_activation() -> nn.Module:
    act = nn.ReLU()
    return nn.Sequential(nn.Conv2d(2, 4, 3), act, nn.Flatten(), nn.Linear(196, 5), act, nn.Linear(5, 5), act)


@pytest.mark.parametrize(
    ("make", "trainable", "width"),
    [
        (Network, ["classifier.*"], 4),
        (Network, ["classifier.2.*"], 5),
        (in_a_row, ["6.*"], 5),
        (in_a_row, ["4.*", "6.*"], 4),
        (with_a_last_softmax, ["0.classifier.2.*"], 0),
        (with_a_shared_activation, ["5.*"], 5),
        (with_a_shared_activation, ["3.*", "5.bias"], 196),
    ],
)
def test_the_parts_give_the_output_and_the_meta_gradient_of_the_module(make, trainable, width):
    module = make().double()
    if not width:
        with pytest.raises(NoFeaturesError):  # the head is within a layer, and the softmax after that
            split_frozen(module, trainable, "frozen", X)
        return
    split = split_frozen(module, trainable, "frozen", X)
    whole = fmaml.from_module(module, trainable=trainable, running_stats="frozen")
    params = whole.init(torch.Generator())
    assert split.rest.init(torch.Generator()).keys() == params.keys()
    x = torch.rand(2, 6, *X.shape[1:], dtype=torch.float64)
    features = split.features.apply({}, x.flatten(0, 1)).unflatten(0, (2, 6))
    assert features.shape == (2, 6, width)
    y = torch.arange(6) % 3
    found = []
    for model, examples in ((whole, x), (split.rest, features)):
        algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.3, steps=2)
        batch = fmaml.Batch(examples, y.expand(2, 6))
        grads, metrics = fmaml.meta_grad(algorithm, params, fmaml.Task(batch, batch))
        found.append({**grads, "loss": metrics["query_loss"], "output": model.apply(params, examples[0])})
    for name, value in found[0].items():
        assert torch.allclose(found[1][name], value, rtol=0, atol=1e-12), name


@pytest.mark.parametrize(
    ("module", "trainable", "statistics", "reason"),
    [
        (Network(), ["*"], "frozen", "no layer but the whole network holds all learnt parameters"),
        (Network(), ["conv.*", "classifier.*"], "frozen", "no layer but the whole network"),
        (Network(), ["conv.*"], "frozen", r"the input of the learnt layers is \[2, 9, 9\], no features"),
        (Network(), ["norm.*"], "frozen", "the output depends on other values than the input of the learnt layers"),
        (Network(), ["classifier.*"], "batch", "depend on the other examples; with batch norm, give statistics=frozen"),
        (ReadsItsImages(), ["classifier.*"], "frozen", "the output depends on other values"),
        (UsesItsWeightBefore(), ["classifier.2.*"], "frozen", "the output depends on other values"),
        (DoesNotCallItsHead(), ["classifier.2.*"], "frozen", "classifier.2, which is learnt, is not called with one"),
        (CallsItsHeadTwice(), ["classifier.*"], "frozen", "the output depends on other values"),
        (Scaled(), ["scale", "classifier.*"], "frozen", "no layer but the whole network"),
    ],
)
def test_a_module_without_features_says_why(module, trainable, statistics, reason):
    with pytest.raises(NoFeaturesError, match=reason):
        split_frozen(module, trainable, statistics, X.float())


def test_the_module_is_not_changed():
    module = Network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    split_frozen(module, ["classifier.*"], "frozen", X)
    assert module.training
    assert all(p.requires_grad for p in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not module.classifier._forward_pre_hooks
