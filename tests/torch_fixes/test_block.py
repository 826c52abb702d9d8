"""Norm, ReLU and pooling as one operator: its derivatives, where it serves, and the compiled file."""

import subprocess
from functools import partial
from typing import Any

import pytest
import torch
from problems import F64, relative, weighted
from torch._subclasses import FakeTensorMode
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

import fmaml
from fmaml.native import compiled_kernels
from fmaml.torch_fixes import block, layout, norms
from fmaml.torch_fixes.block import norm_relu_pool
from fmaml.torch_fixes.support_statistics import statistics_of, with_statistics
from fmaml.tree import leaves, map_leaves

pytestmark = pytest.mark.skipif(compiled_kernels.kernels(F64) is None, reason="needs a C compiler")
LAST = torch.channels_last


def plainly(x, scale, shift, window, eps=1e-5, slope=0.0):
    """The same in torch's operations, each with derivatives of every order."""
    centred = x - x.mean((0, 2, 3), keepdim=True)
    h = centred * (centred.square().mean((0, 2, 3), keepdim=True) + eps).rsqrt()
    y = F.leaky_relu(h * scale.view(-1, 1, 1) + shift.view(-1, 1, 1), slope)
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


@pytest.mark.parametrize("laid_out", [True, False])
@pytest.mark.parametrize("slope", [0.1, 1])
@pytest.mark.parametrize("window", [1, 2, 11])
def test_the_slope_of_negative_values(window, slope, laid_out):
    """Many channels have negative maxima, here by their shift."""
    x, scale, shift = images(3, 6, 12, 13)
    args = (x if laid_out else x.contiguous()), scale, shift - 2
    ours, torchs = (three_derivatives(lambda *a, f=f: f(*a, window, slope=slope), *args) for f in FUNCTIONS)
    assert (ours[0] < 0).any()
    for a, b in zip(ours, torchs, strict=True):
        assert relative(a, b) < 1e-10


@pytest.mark.parametrize("window", [1, 2])
def test_derivatives_are_those_of_differences(window):
    args = [t.requires_grad_() for t in images(2, 3, 4, 4)]
    function: Any = partial(norm_relu_pool, window=window, slope=0.3)
    assert torch.autograd.gradcheck(function, args)
    assert torch.autograd.gradgradcheck(function, args)


def test_ties_in_a_window_have_one_gradient():
    """Equal numbers, positive or negative, as torch's pooling takes the first of them."""
    x, scale, shift = images(4, 3, 6, 6)
    x = x[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3).contiguous(memory_format=LAST)
    ours, torchs = (three_derivatives(lambda *a, f=f: f(*a, 2, slope=0.1), x, scale, shift) for f in FUNCTIONS)
    for a, b in zip(ours, torchs, strict=True):
        assert relative(a, b) < 1e-11


@pytest.mark.parametrize("shared", [False, True])
def test_tasks_are_vmapped(shared):
    """Scales and shifts of each task, or shared by all."""
    x, scale, shift = images(4, 3 * 5, 6, 6)
    x, scale, shift = x.view(4, 3, 5, 6, 6), scale.view(3, 5), shift.view(3, 5)
    scale, shift, axis = (scale[0], shift[0], None) if shared else (scale, shift, 0)

    def found(function):
        together = vmap(lambda *a: three_derivatives(lambda *b: function(*b, 2, slope=0.2), *a), (1, axis, axis))
        return together(x, scale, shift)

    for a, b in zip(found(norm_relu_pool), found(plainly), strict=True):
        assert relative(a, b) < 1e-11


@pytest.mark.parametrize("network", ["strided", "pooled", "residual"])
@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_the_meta_gradient_of_networks(network, batching, monkeypatch):
    """With the operators and without, and they were called."""
    model = {
        "strided": partial(fmaml.conv4, pool="stride"),
        "pooled": partial(fmaml.conv4, pool="max"),
        "residual": fmaml.resnet12,
    }[network](inputs=(3, 16, 20), outputs=3, width=4)
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


@pytest.mark.parametrize("length", [4, 16])
@pytest.mark.parametrize("vmapped", [False, True])
def test_scales_and_shifts_of_a_wrong_length_are_refused(length, vmapped, monkeypatch):
    """Else the kernels would read and write beyond them."""
    monkeypatch.setattr(norms, "LARGE_FEATURES", 0)
    x, right, _ = images(2, 8, 6, 6)
    for function in (partial(norm_relu_pool, window=2), norms.batch_norm):
        for args in ((torch.ones(length, dtype=F64), right), (right, torch.ones(length, dtype=F64))):
            with pytest.raises(RuntimeError, match="must match"):
                vmap(lambda x, f=function, args=args: f(x, *args))(x[None]) if vmapped else function(x, *args)


def test_recorded_operations_are_torchs_own():
    args = images(2, 6, 8, 8)
    recorded = make_fx(partial(norm_relu_pool, window=2))(*args)
    other = images(2, 6, 8, 8)
    assert relative(recorded(*other), plainly(*other, 2)) < 1e-11


def test_images_without_memory_outside_their_mode():
    x, scale, shift = map(FakeTensorMode().from_tensor, images(2, 6, 8, 8))
    assert norm_relu_pool(x, scale, shift, 2).shape == (2, 6, 4, 4)


def test_another_default_device():
    x, scale, shift = images(2, 6, 8, 8)

    def third(function):
        def loss(x):
            return function(x, scale, shift, 2).square().sum()

        return grad(lambda x: grad(lambda x: grad(loss)(x).square().sum())(x).square().sum())(x)

    expected = third(plainly)
    with torch.device("meta"):
        assert relative(third(norm_relu_pool), expected) < 1e-11


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


def test_a_compiler_with_options(cache, monkeypatch):
    _, kernels = cache
    monkeypatch.setenv("CC", "cc -g0")
    assert kernels() is not None


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler", "'"])
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
