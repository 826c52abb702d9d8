"""Norm, ReLU and pooling as one operator: its derivatives, where it serves, and the compiled file."""

import subprocess
from functools import partial
from typing import Any

import pytest
import torch
from problems import F64, relative, weighted
from torch.func import grad, vmap
from torch.nn import functional as F

import fmaml
from fmaml.native import compiled_kernels
from fmaml.torch_fixes import block, layout
from fmaml.torch_fixes.block import norm_relu_pool
from fmaml.torch_fixes.support_statistics import statistics_of, with_statistics
from fmaml.tree import leaves, map_leaves

pytestmark = pytest.mark.skipif(compiled_kernels.kernels(F64) is None, reason="needs a C compiler")
LAST = torch.channels_last


def plainly(x, scale, shift, window, eps=1e-5):
    """The same in torch's operations, each with derivatives of every order."""
    centred = x - x.mean((0, 2, 3), keepdim=True)
    h = centred * (centred.square().mean((0, 2, 3), keepdim=True) + eps).rsqrt()
    y = torch.relu(h * scale.view(-1, 1, 1) + shift.view(-1, 1, 1))
    return F.max_pool2d(y, window) if window > 1 else y


FUNCTIONS: tuple[Any, ...] = (norm_relu_pool, plainly)


def images(*shape: int, dtype: torch.dtype = F64):
    """Random images, scales and shifts; the images are laid out channels last."""
    x = torch.randn(*shape, dtype=dtype).contiguous(memory_format=LAST)
    return x, torch.rand(shape[1], dtype=dtype) + 0.5, 0.3 * torch.randn(shape[1], dtype=dtype)


def three_derivatives(function, *args):
    """The outputs of a function of x, scale and shift, then first, second and third derivatives."""
    found = [function]
    for _ in range(3):
        found.append(grad(weighted(found[-1]), (0, 1, 2)))
    return [t for f in found for t in leaves(f(*args))]


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("size", [(4, 4), (5, 7), (6, 9)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-11), (torch.float32, 1e-3)])
def test_three_derivatives_are_those_of_torchs_operations(window, size, dtype, tolerance):
    args = images(3, 6, *size, dtype=dtype)
    ours, torchs = (three_derivatives(lambda *a, f=f: f(*a, window), *args) for f in FUNCTIONS)
    for a, b in zip(ours, torchs, strict=True):
        assert relative(a, b) < tolerance


@pytest.mark.parametrize("shared", [False, True])
def test_tasks_are_vmapped(shared):
    """Scales and shifts of each task, or shared by all."""
    x, scale, shift = images(4, 3 * 5, 6, 6)
    x, scale, shift = x.view(4, 3, 5, 6, 6), scale.view(3, 5), shift.view(3, 5)
    scale, shift, axis = (scale[0], shift[0], None) if shared else (scale, shift, 0)

    def found(function):
        return vmap(lambda *a: three_derivatives(lambda *b: function(*b, 2), *a), (1, axis, axis))(x, scale, shift)

    for a, b in zip(found(norm_relu_pool), found(plainly), strict=True):
        assert relative(a, b) < 1e-11


@pytest.mark.parametrize("pool", ["stride", "max"])
@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_the_meta_gradient_of_conv4(pool, batching, monkeypatch):
    """With the operators and without, and they were called."""
    model = fmaml.conv4(inputs=(3, 16, 20), outputs=3, width=4, pool=pool)
    theta = {name: p.double() for name, p in model.init(torch.Generator().manual_seed(0)).items()}
    tasks = fmaml.Task(*(fmaml.Batch(torch.randn(2, n, 3, 16, 20, dtype=F64), torch.arange(n) % 3) for n in (6, 9)))
    tasks = map_leaves(lambda t: t if t.ndim > 1 else t.expand(2, -1), tasks)
    maml = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=2)
    expected = fmaml.meta_grad(maml, theta, tasks, batching=batching)[0]
    monkeypatch.setattr(layout, "LARGE_IMAGES", 0)
    calls = []
    call: Any = block._call
    monkeypatch.setattr(block, "_call", lambda name, *a, **k: calls.append(name) or call(name, *a, **k))
    found = fmaml.meta_grad(maml, theta, tasks, batching=batching)[0]
    assert set(calls) == {"forward", "gradient", "second"}
    assert relative(found, expected) < 1e-11


def test_a_small_variance_keeps_its_digits():
    """The mean is 10,000 standard deviations away from zero."""
    x, scale, shift = images(50, 8, 10, 10, dtype=torch.float32)
    x = (0.01 * x + 100).contiguous(memory_format=LAST)
    exact = plainly(x.double(), scale.double(), shift.double(), 2)
    assert relative(norm_relu_pool(x, scale, shift, 2), exact) < 1e-3


def test_vectors_that_are_not_dense():
    """One scale for all channels, expanded, and shifts that are every second number."""
    x, scale, shift = images(3, 6, 4, 4)
    args = x, scale[:1].expand(6), torch.stack([shift, scale], 1)[:, 0]
    ours, torchs = (three_derivatives(lambda *a, f=f: f(*a, 2), *args) for f in FUNCTIONS)
    for a, b in zip(ours, torchs, strict=True):
        assert relative(a, b) < 1e-11


def test_what_is_not_finite_stays_so():
    x, scale, shift = images(2, 3, 4, 4)
    x[0, 1, 2, 2] = float("nan")
    y = norm_relu_pool(x, scale, shift, 2)
    assert y[:, 1].isnan().all()
    assert y[:, [0, 2]].isfinite().all()


def test_results_are_the_same_bits_again():
    args = images(9, 40, 12, 12, dtype=torch.float32)
    first, again = (three_derivatives(lambda *a: FUNCTIONS[0](*a, 2), *args) for _ in range(2))
    assert all(map(torch.equal, first, again))


def test_statistics_of_the_support_set_and_small_images():
    model = fmaml.conv4(inputs=(3, 16, 16), outputs=3, width=4, pool="max")
    params, x = model.init(torch.Generator().manual_seed(0)), torch.rand(6, 3, 16, 16)
    apply = with_statistics(model.apply, statistics_of(model.apply, params, 3 * torch.rand(6, 3, 16, 16)))
    assert relative(apply(params, x), apply(params, x.contiguous(memory_format=LAST))) < 1e-5
    x, scale, shift = images(4, 3, 1, 1)
    assert relative(norm_relu_pool(x, scale, shift, 1), plainly(x, scale, shift, 1)) < 1e-11


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and no kernels that are loaded already."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled = compiled_kernels.kernels.__wrapped__
    return tmp_path, partial(compiled, torch.float32)


def test_the_file_is_compiled_once(cache):
    folder, kernels = cache
    assert kernels() is not None
    (file,) = (folder / "fmaml" / "kernels").iterdir()
    written = file.stat().st_mtime_ns
    assert kernels() is not None
    assert file.stat().st_mtime_ns == written


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler"])
def test_without_a_compiler_torchs_operations_serve(compiler, cache, monkeypatch):
    _, kernels = cache
    monkeypatch.setenv("CC", compiler)
    assert kernels() is None
    monkeypatch.setattr(block, "kernels", lambda dtype: None)
    args = images(3, 6, 4, 4)
    assert relative(norm_relu_pool(*args, 2), plainly(*args, 2)) < 1e-11


def test_a_cache_that_is_no_folder_or_a_broken_file(cache, tmp_path, monkeypatch):
    folder, kernels = cache
    (folder / "fmaml").write_text("a file where a folder should be")
    assert kernels() is None
    (folder / "fmaml").unlink()
    assert kernels() is not None
    (file,) = (folder / "fmaml" / "kernels").iterdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    broken = tmp_path / "other" / file.relative_to(folder)
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"")
    assert kernels() is None


def test_the_source_has_no_warnings():
    command = [
        "cc",
        "-DREAL=float",
        "-Wall",
        "-Wextra",
        "-Werror",
        *compiled_kernels.FLAGS,
        "-c",
        str(compiled_kernels.SOURCE),
        "-o",
        "/dev/null",
    ]
    subprocess.run(command, check=True)
