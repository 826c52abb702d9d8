"""The transformer: causal, equal to attention spelt out, and one meta-gradient however it is computed."""

import math

import pytest
import torch
from problems import F64, doubled, relative
from torch.func import grad
from torch.nn import functional as F

import fmaml
from fmaml import Batch, Task
from fmaml.nn.transformer import attention
from fmaml.tree import map_leaves, take

OPTIONS = [{}, {"tied": True}, {"heads": 1, "layers": 1}, {"layers": 3, "expand": 1}]


def small(**options):
    return fmaml.transformer(**{"inputs": (7,), "outputs": 11, "width": 8, "heads": 2, **options})


def start(model, noise=0.3):
    """Parameters with no zero biases or unit scales, in which a mistake could hide."""
    params = doubled(model.init(torch.Generator().manual_seed(0)))
    return map_leaves(lambda p: p + noise * torch.randn_like(p), params)


def symbol_tasks(tasks: int, shots: int = 2, length: int = 7, symbols: int = 11) -> Task:
    def batch() -> Batch:
        passages = torch.randint(symbols, (tasks, shots, length + 1))
        return Batch(passages[..., :-1], passages[..., 1:])

    return Task(batch(), batch())


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_vmap_loop_chunks_agree(options, first_order):
    model, tasks = small(**options), symbol_tasks(5)
    theta, loss_fn = start(model), fmaml.supervised(model.apply, fmaml.cross_entropy)
    algorithm = fmaml.maml(loss_fn, inner_lr=0.3, steps=2, first_order=first_order)
    expected, metrics = fmaml.meta_grad(algorithm, theta, tasks, batching="loop")
    assert all(g.isfinite().all() and g.abs().sum() > 0 for name, g in expected.items())
    for size in (None, 2, 1):
        grads, also = fmaml.meta_grad(algorithm, theta, tasks, chunk_size=size)
        assert relative(grads, expected) < 1e-12
        assert relative(also, metrics) < 1e-12
        outside = grad(lambda t, size=size: fmaml.meta_loss(algorithm, t, tasks, chunk_size=size)[0])(theta)
        assert relative(outside, expected) < 1e-12


def test_meta_gradient_is_that_of_plain_autograd():
    model, tasks = small(), symbol_tasks(3)
    theta, loss_fn = start(model), fmaml.supervised(model.apply, fmaml.cross_entropy)
    params = {name: value.clone().requires_grad_() for name, value in theta.items()}
    for i in range(3):
        task, phi = take(tasks, i), params
        for _ in range(2):
            inner = torch.autograd.grad(loss_fn(phi, task.support), list(phi.values()), create_graph=True)
            phi = {name: p - 0.3 * g for (name, p), g in zip(phi.items(), inner, strict=True)}
        (loss_fn(phi, task.query) / 3).backward()
    grads, _ = fmaml.meta_grad(fmaml.maml(loss_fn, inner_lr=0.3, steps=2), theta, tasks)
    assert relative(grads, {name: p.grad for name, p in params.items()}) < 1e-12


def test_finite_differences():
    model, tasks = small(), symbol_tasks(2)
    theta = start(model)
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=2)
    grads, _ = fmaml.meta_grad(algorithm, theta, tasks)
    v = map_leaves(torch.randn_like, theta)

    def central(h):
        up, down = (
            fmaml.meta_loss(algorithm, map_leaves(lambda p, d, s=s: p + s * h * d, theta, v), tasks)[0] for s in (1, -1)
        )
        return (up - down) / (2 * h)

    numeric = (4 * central(1e-4) - central(2e-4)) / 3
    assert relative(sum((grads[k] * v[k]).sum() for k in grads), numeric) < 1e-8


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_later_symbol_changes_no_earlier_logit(options):
    model = small(**options)
    params, x = start(model), torch.randint(11, (4, 7))
    before = model.apply(params, x)
    for position in range(7):
        other = x.clone()
        other[:, position] = (other[:, position] + 1) % 11
        after = model.apply(params, other)
        assert torch.equal(after[:, :position], before[:, :position])
        assert (after[:, position:] != before[:, position:]).any(-1).all()


def test_a_prefix_gives_the_same_logits():
    model = small()
    params, x = start(model), torch.randint(11, (4, 7))
    torch.testing.assert_close(model.apply(params, x[:, :3]), model.apply(params, x)[:, :3], rtol=1e-12, atol=1e-12)


def test_attention_spelt_out_position_by_position():
    params, h, heads = start(small()), torch.randn(3, 7, 8, dtype=F64), 2
    found = attention(params, "block1", h, heads)
    weight, bias = params["block1.qkv.weight"], params["block1.qkv.bias"]
    q, k, v = ((h @ weight[8 * i : 8 * i + 8].T + bias[8 * i : 8 * i + 8]) for i in range(3))
    mixed = torch.zeros_like(h)
    for n in range(3):
        for head in range(heads):
            part = slice(4 * head, 4 * head + 4)
            for at in range(7):
                weights = torch.stack([(q[n, at, part] @ k[n, s, part] / math.sqrt(4)).exp() for s in range(at + 1)])
                mixed[n, at, part] = (weights / weights.sum()) @ v[n, : at + 1, part]
    expected = mixed @ params["block1.mix.weight"].T + params["block1.mix.bias"]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_tied_head_has_no_rows_of_its_own():
    assert "head.weight" in small().init(torch.Generator().manual_seed(0))
    assert "head.weight" not in small(tied=True).init(torch.Generator().manual_seed(0))


def test_cross_entropy_is_the_mean_over_positions_and_bits_are_in_base_two():
    logits, y = torch.randn(3, 7, 11, dtype=F64), torch.randint(11, (3, 7))
    each = torch.stack([F.cross_entropy(logits[n, t], y[n, t]) for n in range(3) for t in range(7)])
    torch.testing.assert_close(fmaml.cross_entropy(logits, y), each.mean())
    torch.testing.assert_close(fmaml.bits(torch.zeros(3, 7, 16), torch.zeros(3, 7).long()), torch.tensor(4.0))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="multiple of heads = 3"):
        small(heads=3)
    with pytest.raises(ValueError, match=r"needs passages of symbols, \(length,\)"):
        small(inputs=(1, 28, 28))
    with pytest.raises(ValueError, match="8 symbols; give 7 at most"):
        small().apply(small().init(torch.Generator()), torch.zeros(1, 8).long())
