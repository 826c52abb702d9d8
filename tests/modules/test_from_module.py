"""`from_module`: every layer it lets through is right to second order under vmap; the others are refused by name."""

import contextlib
import copy
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
import torch
from problems import F64, relative
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm, weight_norm
from torch.utils._python_dispatch import TorchDispatchMode

import fmaml
from fmaml import Batch, Model, Params, Task
from fmaml.tree import dot, map_leaves, take

IMAGE, VECTOR, SEQUENCE = (3, 4, 6, 6), (3, 4), (3, 5, 4)


class SelfAttention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, **options)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class Lookup(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer((x * 10).long().abs() % 7)


class Doubled(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class ChannelNorm(nn.Module):
    """ConvNeXt's: layer norm over the channels of an image, called as a function."""

    def __init__(self):
        super().__init__()
        self.scale, self.shift = (nn.Parameter(torch.rand(4)) for _ in "ab")

    def forward(self, x):
        return F.layer_norm(x.permute(0, 2, 3, 1), (4,), self.scale, self.shift).permute(0, 3, 1, 2)


class FunctionalNorm(ChannelNorm):
    def forward(self, x):
        return F.batch_norm(x, None, None, self.scale, self.shift, training=True)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer = kind(4, 4, batch_first=True)

    def forward(self, x):
        return self.layer(x)[0]


class Dropping(nn.Linear):
    """Draws within forward, where no layer says so."""

    def forward(self, input):
        return F.dropout(super().forward(input), 0.5, self.training)


class SqueezeExcite(nn.Module):
    """MobileNetV3's: channels weighed by a hard sigmoid of their means."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

    def forward(self, x):
        return F.hardswish(x) * F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class InvertedResidual(nn.Module):
    """EfficientNet's block: expanded, convolved by channel, weighed by a sigmoid of the means, and projected."""

    def __init__(self):
        super().__init__()
        self.expand, self.project = nn.Conv2d(4, 8, 1, bias=False), nn.Conv2d(8, 4, 1, bias=False)
        self.depthwise, self.weigh = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n, track_running_stats=False) for n in (8, 8, 4))

    def forward(self, x):
        h = F.silu(self.norms[0](self.expand(x)))
        h = F.silu(self.norms[1](self.depthwise(h)))
        h = h * torch.sigmoid(self.weigh(h.mean((2, 3), keepdim=True)))
        return x + self.norms[2](self.project(h))


class ResponseNorm(nn.Module):
    """ConvNeXtV2's global response norm, and its layer scale: [n, height, width, channels]."""

    def __init__(self):
        super().__init__()
        self.scale, self.shift, self.layer_scale = (nn.Parameter(torch.rand(6)) for _ in "abc")

    def forward(self, x):
        size = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        normed = size / (size.mean(-1, keepdim=True) + 1e-6)
        return x + self.layer_scale * (self.scale * (x * normed) + self.shift + x)


class DropsLayers(nn.Linear):
    """Wav2Vec2's: a number is drawn in every call, and used in training mode alone."""

    def forward(self, input):
        drawn = torch.rand([])
        if self.training and bool(drawn < 0.5):
            return input
        return super().forward(input)


class MaskedAttention(nn.Module):
    """GPT-2's: a mask in a buffer, scores and softmax in plain operations."""

    mask: Tensor

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.register_buffer("mask", torch.ones(5, 5, dtype=torch.bool).tril())

    def forward(self, x):
        q, k, v = self.qkv(x).split(4, dim=-1)
        lowest = torch.finfo(q.dtype).min
        scores = torch.where(self.mask, q @ k.mT / 2, torch.full([], lowest, dtype=q.dtype))
        return x + scores.softmax(-1) @ v


class Function(nn.Linear):
    """A linear layer, and a function of its output."""

    def __init__(self, function):
        super().__init__(4, 4)
        self.function = function

    def forward(self, input):
        return self.function(super().forward(input))


encoder = partial(nn.TransformerEncoderLayer, 4, 2, 8, batch_first=True)
GOOD = {
    "linear": (nn.Linear(4, 4), VECTOR),
    "conv1d": (nn.Conv1d(4, 4, 3), (3, 4, 6)),
    "conv2d": (nn.Conv2d(4, 4, 3, padding=1), IMAGE),
    "conv2d strided": (nn.Conv2d(4, 4, 3, stride=2), IMAGE),
    "conv2d grouped": (nn.Conv2d(4, 4, 3, groups=2), IMAGE),
    "conv3d": (nn.Conv3d(4, 4, 3), (2, 4, 4, 4, 4)),
    "conv transposed": (nn.ConvTranspose2d(4, 4, 3, stride=2), IMAGE),
    "batch norm 1d": (nn.BatchNorm1d(4, track_running_stats=False), VECTOR),
    "batch norm 2d": (nn.BatchNorm2d(4, track_running_stats=False), IMAGE),
    "batch norm 2d plain": (nn.BatchNorm2d(4, affine=False, track_running_stats=False), IMAGE),
    "instance norm": (nn.InstanceNorm2d(4, affine=True), IMAGE),
    "instance norm, one example": (nn.InstanceNorm2d(4, affine=True), (4, 5, 5)),
    "instance norm plain": (nn.InstanceNorm2d(4), IMAGE),
    "layer norm": (nn.LayerNorm(4), SEQUENCE),
    "layer norm, two axes": (nn.LayerNorm([5, 4]), SEQUENCE),
    "layer norm without bias": (nn.LayerNorm(4, bias=False), SEQUENCE),
    "group norm": (nn.GroupNorm(2, 4), IMAGE),
    "rms norm": (nn.RMSNorm(4), SEQUENCE),
    "max pool": (nn.MaxPool2d(2), IMAGE),
    "average pool": (nn.AvgPool2d(2), IMAGE),
    "adaptive pool": (nn.AdaptiveAvgPool2d(2), IMAGE),
    "gelu": (nn.GELU(), VECTOR),
    "silu": (nn.SiLU(), VECTOR),
    "prelu": (nn.PReLU(4), VECTOR),
    "relu in place": (nn.ReLU(inplace=True), VECTOR),
    "softmax": (nn.Softmax(-1), VECTOR),
    "dropout off": (nn.Dropout(0.5).eval(), VECTOR),
    "embedding": (Lookup(nn.Embedding(7, 4)), (3, 5)),
    "embedding with padding": (Lookup(nn.Embedding(7, 4, padding_idx=2)), (3, 5)),
    "weight norm": (parametrizations.weight_norm(nn.Linear(4, 4)), VECTOR),
    "weight norm of a convolution": (parametrizations.weight_norm(nn.Conv1d(4, 4, 3), dim=2), (3, 4, 6)),
    "weight norm over all": (parametrizations.weight_norm(nn.Linear(4, 4), dim=cast(Any, None)), VECTOR),
    "weight norm of a grouped convolution": (
        parametrizations.weight_norm(nn.Conv1d(4, 4, 4, padding=2, groups=2), dim=2),
        (3, 4, 6),
    ),
    "hardsigmoid": (nn.Hardsigmoid(), VECTOR),
    "randomised relu in eval mode": (nn.RReLU().eval(), VECTOR),
    "squeeze and excitation": (SqueezeExcite(), IMAGE),
    "inverted residual": (InvertedResidual(), IMAGE),
    "global response norm": (ResponseNorm(), IMAGE),
    "a number drawn and not used": (DropsLayers(4, 4).eval(), VECTOR),
    "masked attention": (MaskedAttention(), SEQUENCE),
    "layer norm over channels": (ChannelNorm(), IMAGE),
    "norm with a forward of its own": (Doubled(4), SEQUENCE),
    "batch norm as a function": (FunctionalNorm(), IMAGE),
    "attention": (SelfAttention(), SEQUENCE),
    "attention in eval mode": (SelfAttention(dropout=0.5).eval(), SEQUENCE),
    "transformer layer": (encoder(dropout=0.0), SEQUENCE),
    "transformer layer in eval mode": (encoder(dropout=0.5).eval(), SEQUENCE),
}


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and still in use
        return weight_norm(nn.Linear(4, 4))


BAD = {
    "running statistics": (nn.BatchNorm2d(4), "BatchNorm2d.*keeps running statistics.*track_running_stats=False"),
    "in eval mode too": (nn.BatchNorm2d(4).eval(), "keeps running statistics"),
    "instance norm's": (nn.InstanceNorm1d(4, track_running_stats=True), "keeps running statistics"),
    "lstm with dropout": (nn.LSTM(4, 4, 2, dropout=0.5), "LSTM.*dropout=0"),
    "dropout": (nn.Dropout(0.5), "Dropout.*global generator"),
    "attention with dropout": (SelfAttention(dropout=0.5), "MultiheadAttention.*dropout=0"),
    "embedding bag": (nn.EmbeddingBag(7, 4), "EmbeddingBag.*no second derivative"),
    "old weight norm": (old_weight_norm(), "Linear.*old weight_norm.*use torch.nn.utils.parametrizations"),
    "spectral norm": (parametrizations.spectral_norm(nn.Linear(4, 4)), "_SpectralNorm.*in place"),
    "old spectral norm": (spectral_norm(nn.Linear(4, 4)), "Linear.*spectral_norm.*in place"),
    "embedding of bounded norm": (nn.Embedding(7, 4, max_norm=1.0), "Embedding.*in place.*max_norm=None"),
    "embedding scaled by frequency": (nn.Embedding(7, 4, scale_grad_by_freq=True), "Embedding.*wrong derivative"),
    "lazy": (nn.LazyLinear(4), "LazyLinear.*call the module once"),
}


class Around(nn.Module):
    """Trainable and smooth before the layer, so that its gradient with respect to its input is tested as well."""

    def __init__(self, layer, shape):
        super().__init__()
        self.scale, self.shift = (nn.Parameter(torch.randn(shape[1:])) for _ in "ab")
        self.layer = layer

    def forward(self, x):
        return self.layer(torch.sin(x * self.scale + self.shift))


def loss_of(model):
    return lambda params, batch: (model.apply(params, batch.x) + 0.3).tanh().pow(3).mean()


def values(model: Model) -> Params:
    """A module's own; its ``init`` draws nothing, and needs no generator."""
    return cast(Callable[[], Params], model.init)()


def tasks_of(shape):
    return Task(*(Batch(torch.randn(3, *shape, dtype=F64), torch.zeros(3, *shape[:1])) for _ in "sq"))


def slope(algorithm, theta, tasks, grads):
    """How far central differences of the meta-loss, of fourth order along one direction, are from the gradient."""
    direction = map_leaves(torch.randn_like, theta)

    def at(distance):
        moved = map_leaves(lambda p, d: p + distance * d, theta, direction)
        return fmaml.meta_loss(algorithm, moved, tasks, batching="loop")[0]

    def found(h):
        return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)

    steps = (1e-3, 1e-4, 1e-5, 1e-6)  # the short ones cross no kink of a rectifier or of max-pooling
    return min(abs(float(found(h) / dot(grads, direction)) - 1) for h in steps)


@pytest.mark.parametrize("name", GOOD)
def test_second_order_is_right_under_vmap(name):
    layer, shape = GOOD[name]
    module = copy.deepcopy(layer) if isinstance(layer, Lookup) else Around(copy.deepcopy(layer), shape)
    module = module.to(F64)
    model = fmaml.from_module(module)
    theta, tasks = model.init(torch.Generator()), tasks_of(shape)
    assert relative(model.apply(theta, tasks.query.x[0]), module(tasks.query.x[0]).detach()) < 1e-14
    assert list(theta) == list(dict(module.named_parameters()))

    algorithm = fmaml.maml(loss_of(model), inner_lr=0.1, steps=2)
    expected, _ = fmaml.meta_grad(algorithm, theta, tasks, batching="loop")
    inside, _ = fmaml.meta_grad(algorithm, theta, tasks)
    outside = grad(lambda t: fmaml.meta_loss(algorithm, t, tasks)[0])(theta)
    assert relative(inside, expected) < 1e-12
    assert relative(outside, expected) < 1e-12
    if name != "embedding with padding":  # the padding's row has no gradient by definition
        assert slope(algorithm, theta, tasks, expected) < 1e-6

    rows = fmaml.evaluate(algorithm, lambda p, t: loss_of(model)(p, t.query), theta, tasks)
    looped = fmaml.evaluate(algorithm, lambda p, t: loss_of(model)(p, t.query), theta, tasks, batching="loop")
    assert relative(rows, looped) < 1e-12


@pytest.mark.parametrize("name", ["batch norm 2d", "instance norm", "layer norm"])
def test_the_rewriting_is_needed(name, monkeypatch):
    """The day torch gets these right, this test says that the norms of `exact_functions` can go."""
    monkeypatch.setattr("fmaml.outer.in_own_code", lambda *args, **options: contextlib.nullcontext())
    layer, shape = GOOD[name]
    module = Around(copy.deepcopy(layer), shape).to(F64)

    def apply(params, x):
        return torch.func.functional_call(module, params, (x,))

    theta = {name: p.detach().clone() for name, p in module.named_parameters()}
    tasks = tasks_of(shape)
    algorithm = fmaml.maml(loss_of(fmaml.Model(lambda g: theta, apply)), inner_lr=0.1, steps=2)
    expected, _ = fmaml.meta_grad(algorithm, theta, tasks, batching="loop")
    outside = grad(lambda t: vmap(lambda task: algorithm.loss(t, task)[0])(tasks).mean())(theta)
    assert relative(outside, expected) > 1e-5
    assert relative(fmaml.meta_grad(algorithm, theta, tasks)[0], expected) < 1e-12  # fmaml's own order is safe


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_right_looped_and_refused_vmapped(kind):
    module = Recurrent(kind).to(F64)
    model, tasks = fmaml.from_module(module), tasks_of(SEQUENCE)
    algorithm = fmaml.maml(loss_of(model), inner_lr=0.1, steps=1)
    found, _ = fmaml.meta_grad(algorithm, model.init(torch.Generator()), tasks, batching="loop")
    total = torch.zeros((), dtype=F64)
    for i in range(3):  # by plain autograd
        task, phi = take(tasks, i), dict(module.named_parameters())
        inner = torch.autograd.grad(loss_of(model)(phi, task.support), list(phi.values()), create_graph=True)
        phi = {name: p - 0.1 * g for (name, p), g in zip(phi.items(), inner, strict=True)}
        total = total + loss_of(model)(phi, task.query) / 3
    assert relative(found, dict(zip(found, torch.autograd.grad(total, list(module.parameters())), strict=True))) < 1e-12
    with pytest.raises(ValueError, match=r'has no vmap rule; use batching="loop"'):
        fmaml.meta_grad(algorithm, model.init(torch.Generator()), tasks)


@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_dropout_within_forward_is_refused_by_name_vmapped_and_looped(batching):
    model = fmaml.from_module(Dropping(4, 4))
    algorithm = fmaml.maml(loss_of(model), inner_lr=0.1, steps=1)
    theta = model.init(torch.Generator())
    with pytest.raises(ValueError, match=r"F.dropout\(training=True\), which draws from the global generator"):
        fmaml.meta_grad(algorithm, theta, map_leaves(Tensor.float, tasks_of(VECTOR)), batching=batching)
    kept = fmaml.from_module(Dropping(4, 4).eval())
    assert torch.equal(kept.apply(theta, torch.ones(2, 4)), F.linear(torch.ones(2, 4), *theta.values()))


DRAWS = {
    "rand": lambda h: h * (torch.rand(4) > 0.5),
    "randn_like": lambda h: h + torch.randn_like(h),
    "randperm": lambda h: h[:, torch.randperm(4)],
    "bernoulli_": lambda h: h * h.new_empty(h.shape[0], 1).bernoulli_(0.5),  # stochastic depth
    "normal_": lambda h: h + torch.empty(4).normal_(),
    "gumbel_softmax": F.gumbel_softmax,
    "fractional_max_pool2d": lambda h: F.fractional_max_pool2d(h[None].expand(4, -1, -1), 2, 2),
    "rrelu": lambda h: F.rrelu(h, training=True),
    "dropout": lambda h: torch.dropout(h, 0.5, True),
    "multi_head_attention_forward": lambda h: F.multi_head_attention_forward(
        *(h, h, h, 4, 2, torch.ones(12, 4), None, None, None, False, 0.5, torch.ones(4, 4), None)
    ),
}


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("name", DRAWS)
def test_random_numbers_that_are_used_are_refused_by_the_functions_name(name, batching):
    model = fmaml.from_module(Function(DRAWS[name]))
    algorithm, tasks = fmaml.maml(loss_of(model), inner_lr=0.1, steps=1), map_leaves(Tensor.float, tasks_of(VECTOR))
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=rf"network calls .*{name}.*, which draws from the global generator"):
        fmaml.meta_grad(algorithm, values(model), tasks, batching=batching)
    assert torch.equal(torch.get_rng_state(), before)


READS = {
    "__contains__": lambda h: h if 7.0 in h else h + 1,
    "__bool__": lambda h: h if h.sum() > 0 else h + 1,
    "item": lambda h: h + h.detach().sum().item(),
    "tolist": lambda h: h + h.detach()[0, 0].tolist(),
}


@pytest.mark.parametrize("name", READS)
def test_numbers_that_python_reads_are_right_looped_and_refused_vmapped(name):
    module = Function(READS[name]).to(F64)
    model, tasks = fmaml.from_module(module), tasks_of(VECTOR)
    assert torch.equal(model.apply(values(model), tasks.query.x[0]), module(tasks.query.x[0]).detach())
    algorithm = fmaml.maml(loss_of(model), inner_lr=0.1, steps=1)
    grads, _ = fmaml.meta_grad(algorithm, values(model), tasks, batching="loop")
    assert all((g != 0).any() for g in grads.values())
    with pytest.raises(ValueError, match=rf'{name}, which reads a number of a task, .*; else use batching="loop"'):
        fmaml.meta_grad(algorithm, values(model), tasks)


@pytest.mark.parametrize("name", BAD)
def test_refused_by_name(name):
    layer, message = BAD[name]
    with pytest.raises(ValueError, match=message) as caught:
        fmaml.from_module(nn.Sequential(nn.Identity(), layer))
    assert "\n  1" in str(caught.value)  # the layer's own name


def test_all_problems_are_named_at_once():
    with pytest.raises(ValueError, match=r"(?s)0 \(BatchNorm1d\).*1 \(Dropout\).*2 \(EmbeddingBag\)"):
        fmaml.from_module(nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.EmbeddingBag(7, 4)))


@pytest.mark.parametrize("choice", ["batch", "frozen"])
@pytest.mark.parametrize("norm", [nn.BatchNorm1d(4), nn.InstanceNorm1d(4, affine=True, track_running_stats=True)])
def test_running_statistics_as_told(choice, norm):
    shape = SEQUENCE if isinstance(norm, nn.InstanceNorm1d) else VECTOR
    module = nn.Sequential(nn.Conv1d(shape[1], 4, 1) if len(shape) == 3 else nn.Linear(4, 4), norm).to(F64)
    for _ in range(3):
        module(torch.randn(6, *shape[1:], dtype=F64))
    module.train(choice == "batch")
    before = copy.deepcopy(module.state_dict())
    model = fmaml.from_module(module, running_stats=choice)
    x, theta = torch.randn(6, *shape[1:], dtype=F64), model.init(torch.Generator())
    assert relative(model.apply(theta, x), copy.deepcopy(module)(x).detach()) < 1e-14
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    algorithm, tasks = fmaml.maml(loss_of(model), inner_lr=0.1, steps=2), tasks_of(shape)
    expected, _ = fmaml.meta_grad(algorithm, theta, tasks, batching="loop")
    assert relative(fmaml.meta_grad(algorithm, theta, tasks)[0], expected) < 1e-12
    assert relative(grad(lambda t: fmaml.meta_loss(algorithm, t, tasks)[0])(theta), expected) < 1e-12


def test_the_module_is_left_alone():
    module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.BatchNorm1d(4, track_running_stats=False))
    before = copy.deepcopy(module)
    model = fmaml.from_module(module)
    theta = model.init(torch.Generator())
    theta["0.weight"] += 1
    assert str(module) == str(before)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), before.parameters(), strict=True))
    assert all(p.requires_grad for p in module.parameters())
    assert torch.equal(model.init(torch.Generator())["0.weight"], before.get_parameter("0.weight"))


def test_frozen_parameters_are_constants_outside_theta():
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).to(F64)
    module[0].requires_grad_(False)
    model, tasks = fmaml.from_module(module), tasks_of(VECTOR)
    theta = values(model)
    assert list(theta) == ["2.weight", "2.bias"]
    assert torch.equal(model.apply(theta, tasks.query.x[0]), module(tasks.query.x[0]).detach())
    algorithm, adam = fmaml.maml(loss_of(model), inner_lr=0.1, steps=2), fmaml.adam(0.1)
    whole = fmaml.from_module(copy.deepcopy(module).requires_grad_())
    part = fmaml.maml(loss_of(whole), inner_lr=0.1, steps=2, only=("2.*",))
    expected, _ = fmaml.meta_grad(part, values(whole), tasks)
    assert relative(fmaml.meta_grad(algorithm, theta, tasks)[0], {name: expected[name] for name in theta}) < 1e-12
    state, _ = fmaml.meta_step(algorithm, adam, fmaml.init_state(algorithm, adam, theta), tasks)
    before = module.get_submodule("0")(tasks.query.x[0]).detach()
    with torch.no_grad():
        module.get_parameter("0.weight").zero_()  # of the user's own module, not of the model
    after = model.apply(state.theta, tasks.query.x[0])
    assert relative(after, F.linear(before.tanh(), state.theta["2.weight"], state.theta["2.bias"])) < 1e-14


def test_a_module_that_is_all_frozen_is_refused():
    with pytest.raises(ValueError, match=r"from_module\(Linear\): every parameter has requires_grad=False"):
        fmaml.from_module(nn.Linear(4, 4).requires_grad_(False))
    assert values(fmaml.from_module(nn.Identity())) == {}


def test_shared_parameters_stay_shared():
    layer = nn.Linear(4, 4)
    module = nn.Sequential(layer, nn.Tanh(), layer).to(F64)
    model = fmaml.from_module(module)
    theta = model.init(torch.Generator())
    assert list(theta) == ["0.weight", "0.bias"]
    theta["0.weight"] = theta["0.weight"] * 2
    with torch.no_grad():
        layer.weight.mul_(2)
    x = torch.randn(3, 4, dtype=F64)
    assert torch.equal(model.apply(theta, x), module(x))


def test_a_tied_parameter_is_learnt_by_any_of_its_names():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module.get_submodule("1").weight = module.get_parameter("0.weight")
    model = fmaml.from_module(module, trainable=["1.*"])
    assert list(model.init(torch.Generator())) == ["0.weight", "1.bias"]
    with pytest.raises(ValueError, match=r"trainable = \[\]: nothing to learn"):
        fmaml.from_module(module, trainable=[])


class Counting(nn.Module):
    """Changes a buffer at each call: in place, or by another tensor in its place."""

    def __init__(self, in_place: bool):
        super().__init__()
        self.in_place, self.layer = in_place, nn.Linear(2, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if self.in_place:
            self.calls += 1
        else:
            self.calls = self.calls + 1
        return self.layer(x) * self.calls


def test_a_buffer_that_is_changed_in_place_is_refused():
    model, x = fmaml.from_module(Counting(False)), torch.ones(3, 2)
    params = model.init(torch.Generator())
    with pytest.raises(ValueError, match=r"from_module\(Counting\): a call sets calls, which is not kept"):
        model.apply(params, x)
    with pytest.raises(ValueError, match=r"from_module\(Counting\): a call changes a buffer .* in place"):
        fmaml.from_module(Counting(True)).apply(params, x)


class Draws(nn.Module):
    """A forward pass that draws."""

    def __init__(self, draw):
        super().__init__()
        self.draw, self.layer = draw, nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(self.draw(x))


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: torch.dropout_(x.clone(), 0.5, True),
        lambda x: torch.feature_dropout(x[..., None], 0.5, True)[..., 0],
        lambda x: torch.alpha_dropout(x, 0.5, True),
        lambda x: torch.native_dropout(x, 0.5, True)[0],
        lambda x: torch.rrelu(x, 0.1, 0.2, True),
        lambda x: nn.init.normal_(x.clone()),
        lambda x: nn.init.xavier_uniform_(x.clone()),
    ],
    ids=["dropout_", "feature_dropout", "alpha_dropout", "native_dropout", "rrelu", "normal_", "xavier_uniform_"],
)
def test_functions_that_draw_are_refused_wherever_they_are(draw):
    model = fmaml.from_module(Draws(draw))
    with pytest.raises(ValueError, match="draws from the global generator"):
        model.apply(model.init(torch.Generator()), torch.ones(3, 2))


class TwoPlaces(nn.Module):
    """One norm in two parents, one registered twice, one held in a plain list as well."""

    def __init__(self, norm, linear):
        super().__init__()
        self.a, self.b = nn.Sequential(linear(), norm), nn.Sequential(linear(), norm)
        self.again = norm
        self.unseen = [norm]

    def forward(self, x):
        return self.unseen[0](self.again(self.a(x)) + self.b(x)) / self.again.eps**0.1


@pytest.mark.parametrize("norm", [nn.LayerNorm(4), nn.BatchNorm1d(4, track_running_stats=False)])
def test_a_shared_norm_stays_itself(norm):
    module = TwoPlaces(copy.deepcopy(norm), lambda: nn.Linear(4, 4)).to(F64)
    with torch.no_grad():
        module.again.weight.normal_()
        module.again.bias.normal_()
    model = fmaml.from_module(module)
    theta, tasks = values(model), tasks_of(VECTOR)
    assert relative(model.apply(theta, tasks.query.x[0]), module(tasks.query.x[0]).detach()) < 1e-14
    algorithm = fmaml.maml(loss_of(model), inner_lr=0.1, steps=2)
    expected, _ = fmaml.meta_grad(algorithm, theta, tasks, batching="loop")
    assert relative(grad(lambda t: fmaml.meta_loss(algorithm, t, tasks)[0])(theta), expected) < 1e-12


def test_names_that_are_not_the_modules_are_refused():
    model = fmaml.from_module(nn.Linear(4, 4))
    theta = values(model)
    for wrong in ({**theta, "wieght": theta["weight"]}, {"weight": theta["weight"]}):
        with pytest.raises(ValueError, match=r"params \['(wieght|bias)'\]: missing, or not"):
            model.apply(wrong, torch.zeros(1, 4))


def test_an_unknown_choice_of_statistics_is_refused():
    with pytest.raises(ValueError, match="running_stats = 'frosen': must be"):
        fmaml.from_module(nn.BatchNorm1d(4), running_stats=cast(Any, "frosen"))


class Meeting(nn.Module):
    """Waits in its forward pass for a second thread, but not long, before and after it uses its parameter."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        meet()
        y = self.weight * x
        meet()
        return y


def meet() -> None:
    with contextlib.suppress(threading.BrokenBarrierError):
        BOTH.wait(0.5)


BOTH = threading.Barrier(2)


def test_two_threads_each_get_the_output_for_their_own_parameters():
    model = fmaml.from_module(Meeting())
    outputs: dict[float, Tensor] = {}

    def call(weight: float) -> None:
        outputs[weight] = model.apply({"weight": torch.tensor(weight)}, torch.ones(1))

    before = allowed_attention()
    threads = [threading.Thread(target=call, args=(weight,)) for weight in (2.0, 3.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    BOTH.reset()
    assert {weight: float(output) for weight, output in outputs.items()} == {2.0: 2.0, 3.0: 3.0}
    assert allowed_attention() == before, "a setting of the process was not put back"


def allowed_attention() -> tuple[bool, ...]:
    """The kinds of attention that torch may choose from in this process."""
    kinds = torch.backends.cuda
    return kinds.flash_sdp_enabled(), kinds.mem_efficient_sdp_enabled(), kinds.math_sdp_enabled()


def test_a_module_may_call_another_model():
    inner = fmaml.from_module(nn.Linear(2, 2))
    params = inner.init(torch.Generator())

    class Outer(nn.Linear):
        def forward(self, input):
            return super().forward(inner.apply(params, input))

    model, x = fmaml.from_module(Outer(2, 1)), torch.ones(3, 2)
    assert model.apply(model.init(torch.Generator()), x).shape == (3, 1)


@pytest.mark.filterwarnings("ignore")  # of torch's own tracing
def test_a_module_is_traced_into_one_graph():
    model, x = fmaml.from_module(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))), torch.randn(5, 3)
    params = model.init(torch.Generator())
    traced = torch.compile(model.apply, fullgraph=True, backend="eager")
    assert torch.allclose(traced(params, x), model.apply(params, x))


class Parts(nn.Module):
    """A backbone and a head, whose result is a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        features = self.backbone(x) if scale is None else self.backbone(x) * scale
        return {"features": features, "logits": self.head(features)}


def test_patterns_say_what_is_learnt_whatever_requires_grad_says():
    module = Parts()
    module.head.requires_grad_(False)
    model = fmaml.from_module(module, trainable=("head.*", "backbone.0.bi*"), output="logits")
    assert list(model.init(torch.Generator())) == ["backbone.0.bias", "head.weight", "head.bias"]
    assert set(fmaml.from_module(module, output="logits").init(torch.Generator())) == {
        "backbone.0.weight",
        "backbone.0.bias",
    }
    with pytest.raises(ValueError, match=r"trainable: 'haed\.\*' matches no parameter; the nearest are head"):
        fmaml.from_module(module, trainable=["haed.*"])
    with pytest.raises(ValueError, match=r"trainable = 'head\.\*': must be a list of patterns"):
        fmaml.from_module(module, trainable="head.*")


def test_what_is_not_trainable_never_moves():
    module = Parts()
    model = fmaml.from_module(module, trainable=["head.*"], output="logits")
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=2)
    state = fmaml.init_state(algorithm, fmaml.adam(0.01), model.init(torch.Generator()))
    batch = fmaml.Batch(torch.randn(2, 4, 3), torch.tensor([[0, 1, 0, 1]] * 2))
    before = module.backbone(torch.ones(1, 3))
    for _ in range(3):
        state, _ = fmaml.meta_step(algorithm, fmaml.adam(0.01), state, fmaml.Task(batch, batch))
    features = fmaml.from_module(module, trainable=["head.*"], output="features")
    assert torch.equal(features.apply(state.theta, torch.ones(1, 3)), before)
    again: Any = fmaml.to_module(module, state.theta)
    assert torch.equal(again(torch.ones(1, 3))["logits"], model.apply(state.theta, torch.ones(1, 3)))
    assert not torch.equal(again.head.weight, module.head.weight)


@pytest.mark.parametrize("batching", ["vmap", "loop", "auto"])
def test_a_tuple_is_given_by_position_and_a_dict_by_name(batching):
    module = Parts().double()
    model = fmaml.from_module(module, output=lambda result: result["logits"])
    params = model.init(torch.Generator())
    x, scale = torch.randn(3, 5, 3).double(), torch.rand(3, 5, 4).double()
    y = torch.randint(0, 2, (3, 5))
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=1)
    grads = []
    for inputs in ((x, scale), {"scale": scale, "x": x}):
        batch = fmaml.Batch(inputs, y)
        grads.append(fmaml.meta_grad(algorithm, params, fmaml.Task(batch, batch), batching=batching)[0])
        metric = fmaml.inductive(model.apply, fmaml.accuracy)
        scores = fmaml.evaluate(algorithm, metric, params, fmaml.Task(batch, batch), batching=batching)
        assert scores.shape == (3, 2)
    for name, value in grads[0].items():
        assert torch.equal(value, grads[1][name])
    expected = module(x[0], scale[0])["logits"]
    assert torch.equal(model.apply(params, (x[0], scale[0])), expected)


def test_parameters_that_are_not_the_modules_do_not_go_into_it():
    with pytest.raises(ValueError, match=r"to_module\(Parts\): haed \[2\]: not a parameter of the module"):
        fmaml.to_module(Parts(), {"haed": torch.ones(2)})
    with pytest.raises(ValueError, match=r"to_module\(Parts\): head.bias \[3\]: there \[2\]"):
        fmaml.to_module(Parts(), {"head.bias": torch.ones(3)})


def test_tied_parameters_stay_tied():
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    phi = {name: value + 1 for name, value in fmaml.from_module(module).init(torch.Generator()).items()}
    again: Any = fmaml.to_module(module, phi)
    assert again[1].weight is again[0].weight
    assert torch.equal(again[1].weight, phi["0.weight"])


def test_what_is_frozen_is_copied_to_another_device_once():
    model = fmaml.from_module(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), trainable=["1.*"])
    params = {name: value.to("meta") for name, value in model.init(torch.Generator()).items()}
    for copies in (2, 0):
        with Copies() as seen:
            model.apply(params, torch.empty(4, 2, device="meta"))
        assert seen.count == copies


class Copies(TorchDispatchMode):
    """Counts the tensors that are copied to another device or type."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))
