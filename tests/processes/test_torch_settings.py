"""Deterministic algorithms on a GPU; precision by name: what it changes, and what it leaves in float32."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import pytest
import torch
from problems import image_tasks, relative

import fmaml
from fmaml.data.sources.glyphs import glyphs
from fmaml.inner import in_inner_step
from fmaml.processes.torch_settings import make_deterministic, set_precision, slow_precision, with_precision
from fmaml.tree import map_leaves, take

CPU = torch.device("cpu")
DETERMINISTIC = cast(Any, torch.utils.deterministic)


@pytest.fixture
def as_before():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize(("precision", "allowed"), [("float32", False), ("tf32", True), ("bf16", False)])
def test_tf32_is_used_only_by_name(precision, allowed):
    set_precision(precision)
    assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")
    assert torch.backends.cudnn.allow_tf32 is allowed


def test_bf16_rounds_the_network_and_nothing_else():
    model = fmaml.mlp(inputs=(4,), outputs=3)
    params, x = model.init(torch.Generator().manual_seed(0)), torch.randn(6, 4)
    rough, exact = with_precision(model, "bf16", CPU).apply(params, x), model.apply(params, x)
    assert rough.dtype == torch.float32
    assert 1e-4 < relative(rough, exact) < 3e-2
    assert with_precision(model, "float32", CPU) is with_precision(model, "tf32", CPU) is model


def test_bf16_vmapped_is_near_float32_and_stays_float32():
    model = fmaml.mlp(inputs=(4,), outputs=3, activation="tanh")  # a rectifier that rounding turns over is a jump
    params = model.init(torch.Generator().manual_seed(0))
    tasks = map_leaves(lambda leaf: leaf.float() if leaf.is_floating_point() else leaf, image_tasks(5, (4,)))

    def gradient(model, **options):
        algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.4, steps=2)
        return fmaml.meta_grad(algorithm, params, tasks, **options)[0]

    rough = gradient(with_precision(model, "bf16", CPU))
    assert all(g.dtype == torch.float32 for g in rough.values())
    assert relative(rough, gradient(with_precision(model, "bf16", CPU), batching="loop")) < 3e-2
    assert 1e-4 < relative(rough, gradient(model)) < 3e-2


def glyph_gradients(precision, **options):
    """conv4's meta-gradient on drawn characters as one vector, by an inner rate that turns over many rectifiers."""
    tasks = glyphs(seed=0, device=CPU, ways=5, shots=1, queries=5, rotate=()).sample("train", 0, range(4))
    model = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=8)
    apply = with_precision(model, precision, CPU).apply
    algorithm = fmaml.maml(fmaml.supervised(apply, fmaml.cross_entropy), inner_lr=0.4, steps=2)
    theta = model.init(torch.Generator().manual_seed(0))
    phi = algorithm.adapt(theta, take(tasks.support, 0))
    return phi, fmaml.meta_grad(algorithm, theta, tasks, **options)[0]


@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_bf16_leaves_inner_steps_in_float32(batching):
    """Else rounding turns over rectifiers in each step, and the meta-gradient differs by 40 % and more."""
    (phi, exact), (rough_phi, rough) = (glyph_gradients(name, batching=batching) for name in ("float32", "bf16"))
    assert all(torch.equal(rough_phi[name], phi[name]) for name in phi)
    assert 1e-3 < relative(rough, exact) < 0.2


def test_a_compiled_meta_gradient_leaves_inner_steps_in_float32():
    model = fmaml.mlp(inputs=(4,), outputs=3)
    theta = model.init(torch.Generator().manual_seed(0))
    tasks = map_leaves(lambda leaf: leaf.float() if leaf.is_floating_point() else leaf, image_tasks(2, (4,)))
    apply = with_precision(model, "bf16", CPU).apply
    algorithm = fmaml.maml(fmaml.supervised(apply, fmaml.cross_entropy), inner_lr=0.4, steps=1)
    compute = partial(fmaml.meta_grad, algorithm, tasks=tasks, batching="vmap")
    compiled = torch.compile(compute, backend="eager", fullgraph=True)
    assert relative(compiled(theta)[0], compute(theta)[0]) < 1e-5


def test_an_inner_step_of_one_thread_does_not_change_another():
    seen = []

    def loss_fn(params, batch):
        with ThreadPoolExecutor(1) as other:
            seen.append((in_inner_step(), other.submit(in_inner_step).result()))
        return params["p"].square()

    fmaml.inner_update(loss_fn, {"p": torch.tensor(1.0)}, fmaml.Batch(torch.zeros(1), torch.zeros(1)), 0.1)
    assert (seen, in_inner_step()) == ([(True, False)], False)


@pytest.mark.parametrize(
    ("instructions", "precision", "slow"),
    [({"avx512_bf16": True}, "bf16", False), ({"avx2": True}, "bf16", True), ({"avx2": True}, "float32", False)],
)
def test_a_line_says_that_bf16_saves_no_time_here(monkeypatch, instructions, precision, slow):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert bool(slow_precision(precision, CPU)) is slow


@pytest.fixture
def _restored(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    fills = DETERMINISTIC.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
    DETERMINISTIC.fill_uninitialized_memory = fills


@pytest.mark.usefixtures("_restored")
def test_a_gpu_is_asked_for_deterministic_algorithms():
    make_deterministic(torch.device("cpu"))
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark
    make_deterministic(torch.device("cuda:0"))
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.benchmark
    assert not DETERMINISTIC.fill_uninitialized_memory
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
