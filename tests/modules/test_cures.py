"""Each cure that a refusal of a module offers: it is gathered from the source, and it works, vmapped and looped."""

# wrong types are given on purpose, and torch's stubs are incomplete:
# pyright: reportIncompatibleMethodOverride=false, reportAttributeAccessIssue=false, reportFunctionMemberAccess=false

from typing import Any

import pytest
import torch
from problems import F64
from test_hidden_tensors import check_right, meta_gradient, plain, sequential, tasks_of_vectors
from torch import nn
from torch.func import grad
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

import fmaml
from fmaml.torch_fixes.explain import EXPLANATIONS
from fmaml.torch_fixes.unsupported_layers import REFUSED


class OldSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, g):
        return 2 * g * ctx.saved_tensors[0]


class LoopedSquare(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x**2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        return 2 * g * ctx.saved_tensors[0]


class Square(LoopedSquare):
    generate_vmap_rule = True


class Applied(nn.Sequential):
    """A network with a function of its hidden layer, and of a linear layer."""

    def __init__(self, function):
        super().__init__(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
        self.function = function
        self.to(F64)

    def forward(self, input):
        return self[2](self.function(self[0](input)))


def changed_in_place(h):
    with torch.no_grad():
        COUNT.mul_(1)
    return h.square()


def without_gradients(h):
    with torch.inference_mode():
        shift = torch.ones(4, dtype=F64)
    return h.square() * shift


def by_autograd(h):
    x = h.detach().requires_grad_()
    return torch.autograd.grad((x**3 / 3).sum(), x)[0] + 0 * h


def by_func(h):
    return grad(lambda x: (x**3 / 3).sum())(h)


def by_sparse(h):
    return torch.sparse.mm(torch.sparse_coo_tensor(PAIRS, torch.ones(3, dtype=F64), (len(h), len(h))), h.square())


def by_index_add(h):
    rows, columns = PAIRS
    return torch.zeros_like(h).index_add(0, rows, h.square()[columns])


COUNT, PAIRS = torch.zeros(()), torch.tensor([[0, 1, 2], [0, 1, 2]])
EXPLAINED: dict[str, tuple[Any, Any]] = {  # reason: (a function that is refused, its cure); the cured one squares
    "torch.func cannot differentiate torch.utils.checkpoint": (
        lambda h: checkpoint(torch.square, h, use_reentrant=False),
        torch.square,
    ),
    "torch.func needs an autograd.Function without ctx in forward": (OldSquare.apply, Square.apply),
    "vmap cannot use this autograd.Function": (LoopedSquare.apply, Square.apply),
    "torch.func takes no derivative by autograd within a function": (by_autograd, by_func),
    "an operation in place changes a tensor from outside the function": (changed_in_place, torch.square),
    "a tensor of inference_mode has no derivative": (without_gradients, torch.square),
}
ELSEWHERE = {  # reasons with a test of their own: here, in test_hidden_state.py, or of losses
    "torch.func calls no hooks on saved tensors, as of save_on_cpu",
    "{0} has no derivative in torch by one of its arguments",
    "torch.func takes no derivative by .backward() within a function",
    "an operation in place changes a parameter",
    "an operation in place changes numbers that a derivative needs",
    "torch.func has no rule for nested tensors",
    "torch.func cannot call this compiled function",
    "torch.func cannot copy a layer within a call",
    "torch.func cannot change a module within a call",
    "torch.func does not call backward hooks of modules",
    "fused attention has no second derivative",
    "{0} has no second derivative in torch",
    "vmap does not draw random numbers",
    "torch.func does not see into packed sequences",
    "NumPy cannot read a task under vmap",
    "NumPy has no derivative",
    "torch.func has no rule for sparse tensors",
    "theta has integers, such as the counter of a batch norm",
    "a label y is beyond the outputs: {0}",
    "torch cannot vmap it",
}


def squared(p, x):
    return F.linear(F.linear(x, p["0.weight"], p["0.bias"]).square(), p["2.weight"], p["2.bias"])


def test_each_explanation_has_a_test():
    assert {rule.reason for rule in EXPLANATIONS} == EXPLAINED.keys() | ELSEWHERE


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reason", EXPLAINED)
def test_an_explained_error_has_a_cure_that_works(reason):
    refused, cured = EXPLAINED[reason]
    with pytest.raises(ValueError, match=rf"(from_module\(Applied\)|your code).*: {reason}; "):
        meta_gradient(Applied(refused), tasks_of_vectors(), "vmap")
    if "batching" not in next(rule.cure for rule in EXPLANATIONS if rule.reason == reason):
        with pytest.raises(ValueError, match=reason):
            meta_gradient(Applied(refused), tasks_of_vectors(), "loop")
    else:
        assert meta_gradient(Applied(refused), tasks_of_vectors(), "loop")
    check_right(Applied(cured), squared)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_sparse_products_have_a_cure_that_works():
    with pytest.raises(ValueError, match=r"no rule for sparse tensors; write the product by .*index_add"):
        meta_gradient(Applied(by_sparse), tasks_of_vectors(), "vmap")
    tasks = tasks_of_vectors()
    first = fmaml.Task(*(fmaml.Batch(batch.x[:, :3], batch.y[:, :3]) for batch in tasks))
    net = Applied(torch.square)
    right = meta_gradient(net, first, "loop")
    net.function = by_index_add
    for batching in ("vmap", "loop"):
        found = meta_gradient(net, first, batching)
        assert all(torch.allclose(found[name], right[name], rtol=1e-12) for name in right)


class Packed(nn.Module):
    """A recurrent layer on sequences of several lengths: packed, or padded as the cure says."""

    def __init__(self, packs):
        super().__init__()
        self.packs, self.lengths = packs, torch.tensor([5, 4, 4, 2])
        self.layer, self.o = nn.GRU(1, 4, batch_first=True).to(F64), nn.Linear(4, 2).to(F64)

    def forward(self, x):
        x, lengths = x[..., None], self.lengths[: len(x)]
        if self.packs:
            packed = self.layer(pack_padded_sequence(x, lengths, batch_first=True))[0]
            h = pad_packed_sequence(packed, batch_first=True, total_length=5)[0]
        else:
            h = self.layer(x)[0] * (torch.arange(5) < lengths[:, None])[..., None]
        return self.o(h.sum(1))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_packed_sequences_have_a_cure_that_works():
    packed, padded, x = Packed(True), Packed(False), tasks_of_vectors().support.x[0]
    padded.load_state_dict(packed.state_dict())
    assert torch.allclose(packed(x), padded(x), rtol=1e-12)
    for batching in ("vmap", "loop"):
        with pytest.raises(ValueError, match="does not see into packed sequences; give padded sequences"):
            meta_gradient(packed, tasks_of_vectors(), batching)
    assert any((g != 0).any() for g in meta_gradient(padded, tasks_of_vectors(), "loop").values())


CURED: dict[str, Any] = {  # each reason of a refused layer: a network with its cure, and settings of from_module
    "spreads its batch over devices": lambda: nn.DataParallel(sequential()).module,
    "is scripted": sequential,
    "is compiled": lambda: torch.compile(sequential(), backend="eager")._orig_mod,
    "has a backward hook": sequential,
    "has a hook on a parameter": sequential,
    "has no second derivative; use nn.Embedding": lambda: nn.Sequential(Bags(), nn.Linear(4, 2)),
    "updates its buffers in place; remove the parametrization": lambda: without_spectral_norm(),
    "has spectral_norm": sequential,
    "has the old weight_norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 4)), nn.Linear(4, 2)),
    "changes its weight in place; build it with max_norm=None": lambda: nn.Sequential(Bags(), nn.Linear(4, 2)),
    "has a wrong derivative under vmap; use scale_grad": lambda: nn.Sequential(Bags(), nn.Linear(4, 2)),
    "has no parameters yet": lambda: initialised(nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))),
    "draws from the global generator; use p=0": lambda: nn.Sequential(nn.Linear(5, 2), nn.Dropout(0.5).eval()),
    "has dropout; use dropout=0 or .eval()": lambda: Recurrent(dropout=0.0),
    "draws from the global generator; use nn.LeakyReLU": lambda: nn.Sequential(nn.Linear(5, 2), nn.RReLU().eval()),
}


class Bags(nn.Module):
    """The mean of an embedding: the cure of a bag."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(7, 4, max_norm=None, scale_grad_by_freq=False)

    def forward(self, x):
        return self.words((x * 3).long().abs() % 7).mean(1)


class Recurrent(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.layer = nn.MultiheadAttention(5, 1, batch_first=True, **options)
        self.o = nn.Linear(5, 2)

    def forward(self, x):
        return self.o(self.layer(x[None], x[None], x[None], need_weights=False)[0][0])


def without_spectral_norm() -> nn.Module:
    net = sequential()
    nn.utils.parametrize.remove_parametrizations(parametrizations.spectral_norm(net[0]), "weight")
    return net


def initialised(net: nn.Module) -> nn.Module:
    net(torch.ones(1, 5))
    return net


def test_each_reason_against_a_layer_has_a_cure():
    reasons = {reason for _, _, reason in REFUSED}
    assert all(sum(reason.startswith(start) for start in CURED) == 1 for reason in reasons)
    assert all(any(reason.startswith(start) for reason in reasons) for start in CURED)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("start", CURED)
def test_the_cure_of_a_refused_layer_works(start):
    net = CURED[start]().to(F64)
    found = [meta_gradient(net, tasks_of_vectors(), batching) for batching in ("vmap", "loop")]
    for name, value in found[0].items():
        assert torch.allclose(value, found[1][name], rtol=1e-10, atol=1e-12)
    assert any((value != 0).any() for value in found[0].values())


def test_numpy_in_a_forward_pass_is_refused():
    net = Applied(lambda h: h * float(h.detach().numpy().mean()))
    for batching in ("vmap", "loop"):
        with pytest.raises(ValueError, match="NumPy has no derivative; compute it in torch"):
            meta_gradient(net, tasks_of_vectors(), batching)
    check_right(Applied(torch.tanh), plain)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch 2.14 reads it while it traces
@pytest.mark.xfail(torch.__version__ >= "2.14", reason="torch 2.14 does not compile a function within torch.func")
def test_a_compiled_function_is_right():
    check_right(Applied(torch.compile(torch.square, backend="eager")), squared)
