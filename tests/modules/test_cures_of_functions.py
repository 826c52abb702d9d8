"""Each refused function of torch: it is refused by name, and each cure of the message works, vmapped and looped."""

# wrong types are given on purpose, and torch's stubs are incomplete: pyright: reportArgumentType=false

import re
from typing import Any

import pytest
import torch
from problems import F64, relative
from test_hidden_tensors import meta_gradient, tasks_of_vectors
from torch import nn
from torch.nn import functional as F

import fmaml
from fmaml.torch_fixes.functions import EXACT, HANDLERS, HOOKS_ON_GRADIENTS, REPLACED, functions_of

ONES, ZEROS = torch.ones(4, dtype=F64), torch.zeros(4, dtype=F64)
WORDS = torch.linspace(-1, 1, 20, dtype=F64).reshape(5, 4)
SQUARE = torch.linspace(-1, 1, 16, dtype=F64).reshape(4, 4)
CELL = (SQUARE, SQUARE, ONES, ZEROS)
aten = torch.ops.aten


class Calling(nn.Module):
    """A network with a function of its hidden layer [n, 4] and of its mode."""

    def __init__(self, function, **buffers):
        super().__init__()
        self.a, self.o = nn.Linear(5, 4, dtype=F64), nn.Linear(4, 2, dtype=F64)
        self.function = function
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, x, *more):
        return self.o(self.function(self.a(x), self.training, *more))


def refusal(function, batching="vmap", net=None) -> str:
    with pytest.raises(ValueError, match="the network calls") as error:
        meta_gradient(net or Calling(function), tasks_of_vectors(), batching)
    return str(error.value)


def check_cured(net, tasks=None, **options):
    """The meta-gradient is the same vmapped and looped, and is not zero."""
    found = [meta_gradient(net, tasks or tasks_of_vectors(), batching, **options) for batching in ("vmap", "loop")]
    assert all(any((g != 0).any() for g in each.values()) for each in found)
    assert relative(*found) < 1e-11


def named(kind: str) -> set[str]:
    """The functions of the handlers of this kind: its name, or that of its function for a partial."""
    rows = ((getattr(handler, "func", handler), owner, names) for handler, owner, names in HANDLERS)
    found = (functions_of(owner, names) for handler, owner, names in rows if handler.__name__ == kind)
    return {name_of(function) for functions in found for function in functions}


def name_of(function: Any) -> str:
    """Such as ``nn.functional.dropout``, ``Tensor.item``, ``aten.embedding`` or ``rand``."""
    if isinstance(function, torch._ops.OpOverloadPacket):
        return str(function)
    owner = getattr(function, "__objclass__", None)
    if owner or "Tensor." in function.__qualname__:
        return f"Tensor.{function.__name__}"
    return f"{function.__module__ or 'torch'}.{function.__name__}".removeprefix("torch.")


# Dropout


def as_feature_maps(axes: int, drop: Any) -> Any:
    """The dropout function for [n, 4] as one position of ``axes`` axes."""
    return lambda h, *options: drop(h.reshape(*h.shape, *[1] * axes), *options).reshape(h.shape)


def in_place(drop: Any) -> Any:
    return lambda h, *options: drop(h.clone(), *options)


DROPOUTS = {  # (h, p, training)
    "nn.functional.dropout": F.dropout,
    "nn.functional.dropout1d": as_feature_maps(1, F.dropout1d),
    "nn.functional.dropout2d": as_feature_maps(2, F.dropout2d),
    "nn.functional.dropout3d": as_feature_maps(3, F.dropout3d),
    "nn.functional.alpha_dropout": F.alpha_dropout,
    "nn.functional.feature_alpha_dropout": as_feature_maps(1, F.feature_alpha_dropout),
    "dropout": torch.dropout,
    "dropout_": in_place(torch.dropout_),
    "feature_dropout": torch.feature_dropout,
    "feature_dropout_": in_place(torch.feature_dropout_),
    "alpha_dropout": torch.alpha_dropout,
    "alpha_dropout_": in_place(torch.alpha_dropout_),
    "feature_alpha_dropout": torch.feature_alpha_dropout,
    "feature_alpha_dropout_": in_place(torch.feature_alpha_dropout_),
    "native_dropout": lambda h, p, training: torch.native_dropout(h, p, training)[0],
}


def test_each_dropout_function_has_a_trial():
    assert DROPOUTS.keys() == named("no_dropout")


@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout_that_drops_nothing_returns_the_same_as_torch(name):
    net, x = Calling(lambda h, training: DROPOUTS[name](h, 0.5, training)).eval(), tasks_of_vectors().support.x[0]
    assert torch.equal(fmaml.from_module(net).apply(dict(net.named_parameters()), x), net(x))


def test_dropout_takes_the_keywords_of_torch():
    def drop(h, training):
        return torch.dropout(input=h, p=0.5, train=training) * F.dropout(h, p=0.5, training=training)

    check_cured(Calling(drop).eval())
    check_cured(Calling(drop), fmaml.with_keys(tasks_of_vectors(), seed=0, step=0), dropout="keyed")
    assert "torch.dropout(training=True)" in refusal(drop)


@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout_has_cures_that_work(name):
    drop = DROPOUTS[name]
    message = refusal(lambda h, training: drop(h, 0.5, True))
    called = f"{'F' if 'functional' in name else 'torch'}.{name.rpartition('.')[2]}(training=True)"
    assert message.startswith(f"the network calls {called}, which draws from the global generator; give p=0")
    check_cured(Calling(lambda h, training: drop(h, 0.0, True)))
    check_cured(Calling(lambda h, training: drop(h, 0.5, training)).eval())
    if "keyed" in message:
        tasks = fmaml.with_keys(tasks_of_vectors(), seed=0, step=0)
        net = Calling(lambda h, training: drop(h, 0.5, training))
        check_cured(net, tasks, dropout="keyed")
        kept = meta_gradient(net.eval(), tasks_of_vectors(), "vmap")
        assert relative(meta_gradient(net.train(), tasks, "vmap", dropout="keyed"), kept) > 0.01


def test_dropout_that_torch_alone_can_do_is_not_offered_with_keys():
    offered = {
        name for name, drop in DROPOUTS.items() if "keyed" in refusal(lambda h, training, d=drop: d(h, 0.5, True))
    }
    assert offered == {"dropout", *(f"nn.functional.dropout{axes}" for axes in ("", "1d", "2d", "3d"))}


def attention(h, p):
    return F.scaled_dot_product_attention(h[None], h[None], h[None], dropout_p=p)[0]


def heads(h, p, training):
    given = (4, 2, torch.ones(12, 4, dtype=F64) / 4, None, None, None, False, p, SQUARE, None)
    return F.multi_head_attention_forward(h[:, None], h[:, None], h[:, None], *given, training=training)[0][:, 0]


@pytest.mark.parametrize(
    ("refused", "cured"),
    [
        (lambda h, training: attention(h, 0.5), [lambda h, training: attention(h, 0.0)]),
        (
            lambda h, training: heads(h, 0.5, True),
            [lambda h, training: heads(h, 0.0, True), lambda h, training: heads(h, 0.5, training)],
        ),
        (
            lambda h, training: F.rrelu(h, training=True),
            [lambda h, training: F.leaky_relu(h), lambda h, training: F.rrelu(h, training=training)],
        ),
    ],
    ids=["scaled_dot_product_attention", "multi_head_attention_forward", "rrelu"],
)
def test_layers_that_draw_have_cures_that_work(refused, cured):
    message = refusal(refused)
    assert len(cured) == message.count("give ") + message.count("call F") + message.count(", or training=")
    for function in cured:
        check_cured(Calling(function).eval())


# Random numbers

RANDOM = {  # h to random numbers that multiply it
    "rand": lambda h: torch.rand(4, dtype=F64),
    "randn": lambda h: torch.randn(4, dtype=F64),
    "randint": lambda h: torch.randint(9, (4,)),
    "randperm": lambda h: torch.randperm(4),
    "rand_like": torch.rand_like,
    "randn_like": torch.randn_like,
    "randint_like": lambda h: torch.randint_like(h, 9),
    "bernoulli": lambda h: torch.bernoulli(ONES / 2),
    "normal": lambda h: torch.normal(ZEROS, ONES),
    "multinomial": lambda h: torch.multinomial(ONES, 4),
    "poisson": lambda h: torch.poisson(ONES),
    "Tensor.bernoulli": lambda h: (ONES / 2).bernoulli(),
    "Tensor.multinomial": lambda h: ONES.multinomial(4),
    **{
        f"Tensor.{name}": lambda h, name=name, given=given: getattr(torch.empty(4, dtype=F64), name)(*given)
        for name, given in {
            "bernoulli_": [],
            "uniform_": [],
            "normal_": [],
            "random_": [],
            "exponential_": [],
            "geometric_": [0.5],
            "log_normal_": [],
            "cauchy_": [],
        }.items()
    },
    "nn.functional.gumbel_softmax": F.gumbel_softmax,
    **{
        f"nn.functional.{name}": lambda h, name=name: getattr(F, name)(torch.ones(1, 1, 4, 4), 2, 2)[0][0, 0, 0]
        for name in ("fractional_max_pool2d", "fractional_max_pool2d_with_indices")
    },
    **{
        f"nn.functional.{name}": lambda h, name=name: getattr(F, name)(torch.ones(1, 1, 4, 4, 4), 2, 2)[0][0, 0, 0, 0]
        for name in ("fractional_max_pool3d", "fractional_max_pool3d_with_indices")
    },
    **{
        f"nn.init.{name}": lambda h, name=name, more=more: getattr(nn.init, name)(torch.empty(4, 4, dtype=F64), *more)[
            0
        ]
        for name, more in {
            **dict.fromkeys(("normal_", "uniform_", "trunc_normal_", "orthogonal_"), ()),
            **dict.fromkeys(("xavier_normal_", "xavier_uniform_", "kaiming_normal_", "kaiming_uniform_"), ()),
            "sparse_": (0.5,),
        }.items()
    },
}


def test_each_random_function_has_a_trial():
    assert RANDOM.keys() == named("refuse_result") | named("refuse_call")


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_have_cures_that_work(name):
    draw = RANDOM[name]
    for batching in ("vmap", "loop"):
        message = refusal(lambda h, training: h * draw(h), batching)
        called = r"\w+" if "init" in name else name.rpartition(".")[2]  # some of nn.init call others
        assert re.search(rf"{called}, which draws from the global generator; give the numbers", message)
    check_cured(Calling(lambda h, training: h * draw(h) if training else h * 2).eval())
    tasks, noise = tasks_of_vectors(), torch.Generator().manual_seed(0)
    with_noise = fmaml.Task(
        *(b._replace(x=(b.x, torch.randn(*b.x.shape[:2], 4, generator=noise, dtype=F64))) for b in tasks)
    )
    check_cured(Calling(lambda h, training, given: h * given), with_noise)


# Norms and embeddings beneath torch.nn.functional


def words(h):
    return (h > 0).long().sum(1)


def channels(h):
    return h[:, :2, None] * h[:, None]


LOW_LEVEL = {  # the refused call, and that of the function that its message names
    "batch_norm": (
        lambda h, *_: torch.batch_norm(h, ONES, ZEROS, None, None, True, 0.1, 1e-5, False),
        lambda h, *_: F.batch_norm(h, None, None, ONES, ZEROS, True),
    ),
    "native_batch_norm": (
        lambda h, *_: torch.native_batch_norm(h, ONES, ZEROS, None, None, True, 0.1, 1e-5)[0],
        lambda h, *_: F.batch_norm(h, None, None, ONES, ZEROS, True),
    ),
    "aten.batch_norm": (
        lambda h, *_: aten.batch_norm(h, ONES, ZEROS, None, None, True, 0.1, 1e-5, False),
        lambda h, *_: F.batch_norm(h, None, None, ONES, ZEROS, True),
    ),
    "aten.native_batch_norm": (
        lambda h, *_: aten.native_batch_norm(h, ONES, ZEROS, None, None, True, 0.1, 1e-5)[0],
        lambda h, *_: F.batch_norm(h, None, None, ONES, ZEROS, True),
    ),
    "instance_norm": (
        lambda h, *_: torch.instance_norm(channels(h), None, None, None, None, True, 0.1, 1e-5, False).sum(1) * h,
        lambda h, *_: F.instance_norm(channels(h)).sum(1) * h,
    ),
    "aten.instance_norm": (
        lambda h, *_: aten.instance_norm(channels(h), None, None, None, None, True, 0.1, 1e-5, False).sum(1) * h,
        lambda h, *_: F.instance_norm(channels(h)).sum(1) * h,
    ),
    "native_layer_norm": (
        lambda h, *_: torch.native_layer_norm(h, [4], ONES, ZEROS, 1e-5)[0],
        lambda h, *_: F.layer_norm(h, [4], ONES, ZEROS),
    ),
    "aten.layer_norm": (
        lambda h, *_: aten.layer_norm(h, [4], ONES, ZEROS),
        lambda h, *_: F.layer_norm(h, [4], ONES, ZEROS),
    ),
    "aten.native_layer_norm": (
        lambda h, *_: aten.native_layer_norm(h, [4], ONES, ZEROS, 1e-5)[0],
        lambda h, *_: F.layer_norm(h, [4], ONES, ZEROS),
    ),
    "embedding": (
        lambda h, *_: torch.embedding(WORDS, words(h)) * h,
        lambda h, *_: F.embedding(words(h), WORDS) * h,
    ),
    "aten.embedding": (
        lambda h, *_: aten.embedding(WORDS, words(h)) * h,
        lambda h, *_: F.embedding(words(h), WORDS) * h,
    ),
}


def test_each_low_level_function_has_a_trial():
    assert LOW_LEVEL.keys() == named("refuse_internal")


@pytest.mark.parametrize("name", LOW_LEVEL)
def test_low_level_functions_have_a_cure_with_the_same_result(name):
    refused, cured = LOW_LEVEL[name]
    for batching in ("vmap", "loop"):
        message = refusal(refused, batching)
        function = message.partition("; call F.")[2]
        assert function in cured.__code__.co_names
    check_cured(Calling(cured))
    h = torch.randn(6, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(refused(h), cured(h), rtol=1e-12)


def running(norm):
    """A norm by its running statistics, which ``norm(h, mean, var, training)`` is given."""
    return lambda h, training: norm(h, ZEROS[:2].clone(), ONES[:2].clone(), training)


def normed(h, mean, var, training):
    return F.batch_norm(channels(h), mean, var, training=training).sum(1) * h


def normed_instances(h, mean, var, training):
    return F.instance_norm(channels(h), mean, var, use_input_stats=training).sum(1) * h


@pytest.mark.parametrize("norm", [normed, normed_instances])
def test_norms_have_cures_that_work(norm):
    assert "updates running statistics; give None for them, or " in refusal(running(norm))
    check_cured(Calling(lambda h, training: norm(h, None, None, True)))
    check_cured(Calling(running(norm)).eval())
    assert "give them, or the statistics of the batch" in refusal(
        None, net=Calling(lambda h, training: norm(h, None, None, False))
    )


@pytest.mark.parametrize("option", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}])
def test_options_of_embeddings_have_a_cure_that_works(option):
    message = refusal(lambda h, training: F.embedding(words(h), WORDS, **option) * h)
    assert f"F.embedding({next(iter(option))}=" in message
    check_cured(Calling(lambda h, training: F.embedding(words(h), WORDS, max_norm=None, scale_grad_by_freq=False) * h))


# Without a rule for vmap


def cell(kind):
    gates = {"lstm": 4, "gru": 3}.get(kind.split("_")[0], 1)
    weights = [SQUARE.repeat(gates, 1), SQUARE.repeat(gates, 1), ONES.repeat(gates), ZEROS.repeat(gates)]

    def step(h, training):
        before = torch.zeros_like(h)
        result = getattr(torch, kind)(h, (before, before) if kind == "lstm_cell" else before, *weights)
        return result[0] if kind == "lstm_cell" else result

    def layer(h, training):
        before = torch.zeros_like(h)[None]
        state = (before, before) if kind == "lstm" else before
        return getattr(torch, kind)(h[None], state, weights, True, 1, 0.0, False, False, False)[0][0]

    return step if kind.endswith("_cell") else layer


RULELESS = {name: cell(name) for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")}
RULELESS |= {f"{name}_cell": cell(f"{name}_cell") for name in RULELESS}
READS = {
    "Tensor.item": lambda h, training: h * (1 + h.detach().sum().item()),
    "Tensor.tolist": lambda h, training: h * (1 + h.detach()[0, 0].tolist()),
    "Tensor.__contains__": lambda h, training: h if 7.0 in h else h * 2,
    "Tensor.__bool__": lambda h, training: h if h.sum() > 0 else h * 2,
    "Tensor.__int__": lambda h, training: h * (1 + int(h.detach().sum() * 9)),
    "Tensor.__float__": lambda h, training: h * (1 + float(h.detach().sum())),
    "Tensor.__index__": lambda h, training: h * range(1, 100)[(h > 0).sum()],
}


def test_each_function_without_a_rule_for_vmap_has_a_trial():
    assert RULELESS.keys() | READS.keys() == named("refuse_vmap")


@pytest.mark.parametrize("name", RULELESS | READS)
def test_functions_without_a_rule_for_vmap_have_cures_that_work(name):
    net = Calling((RULELESS | READS)[name])
    message = refusal(None, net=net)
    assert message.endswith('use batching="loop", and `fmaml.transductive` to score')
    tasks, model = tasks_of_vectors(), fmaml.from_module(net)
    assert any((g != 0).any() for g in meta_gradient(net, tasks, "loop").values())
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.mse), inner_lr=0.1, steps=1)
    metric = fmaml.transductive(model.apply, fmaml.mse)
    scores = fmaml.evaluate(algorithm, metric, model.init(torch.Generator()), tasks, batching="loop")
    assert scores.isfinite().all()


# Hooks on gradients


def test_a_scaled_gradient_has_a_cure_with_the_same_derivative():
    x = torch.tensor([1.0, 2.0], dtype=F64, requires_grad=True)
    h = x.sin()
    h.register_hook(lambda g: 0.3 * g)
    hooked = torch.autograd.grad(h.square().sum(), x)[0]
    h = x.sin()
    h = 0.3 * h + (1 - 0.3) * h.detach()
    assert torch.allclose(torch.autograd.grad(h.square().sum(), x)[0], hooked, rtol=1e-12)
    check_cured(Calling(lambda h, training: 0.3 * h + (1 - 0.3) * h.detach()))


def test_no_refused_function_is_without_a_trial():
    tried = DROPOUTS.keys() | RANDOM.keys() | LOW_LEVEL.keys() | RULELESS.keys() | READS.keys()
    replaced = REPLACED.keys() - set(HOOKS_ON_GRADIENTS)
    refused = {name_of(function) for function in EXACT if function not in replaced}
    assert refused - {name_of(hook) for hook in HOOKS_ON_GRADIENTS} == tried
