"""Burgers' equation in `examples/burgers/`: the exact solution, the residual, the network, and a run of seconds."""

import math
from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.func import jvp

import fmaml
from fmaml.cli.main import main
from fmaml.tree import take

TOP = Path(__file__).parent.parent
SMALL = ["train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2", "eval.tasks=2", "--device", "cpu"]
CPU = torch.device("cpu")


@pytest.fixture
def example(monkeypatch):
    """Return a module of the example by its name, with the checkout as the current folder."""
    monkeypatch.chdir(TOP)
    monkeypatch.syspath_prepend(str(TOP))
    return lambda name: import_module(f"examples.burgers.{name}")


def domain(viscosity: float) -> torch.Tensor:
    """Points (x, t, viscosity) in float64, [300, 3]."""
    at = torch.rand(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.cat([2 * at[:, :1] - 1, 0.01 + 0.49 * at[:, 1:], torch.full_like(at[:, :1], viscosity)], 1)


@pytest.mark.parametrize("viscosity", [0.005, 0.02, 0.05])
def test_the_exact_solution_has_no_residual(example, viscosity):
    points = domain(viscosity)
    wrong, slope = example("burgers").residual(lambda params, points: example("exact").exact(points), {}, points)
    assert slope.abs().max() > 5
    assert wrong.abs().max() < 1e-9


def test_the_exact_solution_begins_and_ends_as_it_should(example):
    exact, points = example("exact").exact, domain(0.02)
    x, still = points[:, :1], torch.zeros_like(points[:, :1])
    assert torch.allclose(exact(torch.cat([x, still, points[:, 2:]], 1)), -(math.pi * x).sin(), atol=1e-12)
    for end in (-1, 0, 1):
        assert exact(torch.cat([still + end, points[:, 1:]], 1)).abs().max() < 1e-12


def test_the_exact_solution_has_the_published_steepest_slope(example):
    """152.00516 at pi t = 1.6037 with viscosity 0.01 / pi: Basdevant et al. 1986, table 5."""
    points = torch.tensor([[0, 1.6037 / math.pi, 0.01 / math.pi]], dtype=torch.float64)
    along_x = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    assert float(jvp(example("exact").exact, (points,), (along_x,))[1]) == pytest.approx(-152.00516, abs=1e-4)


def test_the_residual_of_a_polynomial(example):
    """u = a x^3 t has u_t = a x^3, u_x = 3 a x^2 t and u_xx = 6 a x t."""
    points = domain(0.02)
    x, t, viscosity = points.split(1, 1)
    wrong, slope = example("burgers").residual(
        lambda params, points: params["a"] * points[:, :1] ** 3 * points[:, 1:2], {"a": torch.tensor(2.0)}, points
    )
    assert torch.allclose(slope, 6 * x**2 * t)
    assert torch.allclose(wrong, 2 * x**3 + 2 * x**3 * t * 6 * x**2 * t - viscosity * 12 * x * t)


@pytest.mark.parametrize("told", [False, True])
def test_the_network_obeys_its_limits_and_sees_the_viscosity_only_if_told(example, told):
    model = example("network").field(inputs=(3,), outputs=1, hidden=(8, 8), told=told)
    params, points = model.init(torch.Generator().manual_seed(0)), domain(0.02).float()
    x, t, viscosity = points.split(1, 1)
    still = torch.zeros_like(x)
    assert torch.allclose(model.apply(params, torch.cat([x, still, viscosity], 1)), -(math.pi * x).sin())
    for end in (-1, 1):
        assert model.apply(params, torch.cat([still + end, t, viscosity], 1)).abs().max() < 1e-6
    other = model.apply(params, torch.cat([x, t, 2 * viscosity], 1))
    assert torch.equal(other, model.apply(params, points)) is not told


def test_tasks_are_points_and_one_viscosity(example):
    source = example("burgers").burgers(seed=0, device=CPU, points=300, queries=200)
    tasks = source.sample("test", 0, range(40))
    x, t, viscosity = torch.cat([tasks.support.x, tasks.query.x], 1).unbind(-1)
    assert x.shape == (40, 500)
    assert torch.equal(viscosity, viscosity[:, :1].expand(40, 500))
    for values, low, high in ((x, -1, 1), (t, 0, 0.5), (viscosity, 0.005, 0.05)):
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high
    assert not tasks.support.y.any()
    part = source.sample("test", 0, range(3, 5))
    assert torch.equal(part.query.x, tasks.query.x[3:5])


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_the_error_of_a_wrong_field_is_known(example, share):
    source = example("burgers").burgers(seed=0, device=CPU)
    task = take(source.sample("test", 0, range(1)), 0)
    exact = example("exact").exact
    score = source.settings[0](lambda params, points: (1 + share) * exact(points).float(), source.metric.fn)
    assert float(score({}, task)) == pytest.approx(share, abs=1e-5)


def test_the_gradient_vmapped_is_that_of_plain_autograd(example):
    """Second order through u_xx: each task alone, by torch.autograd, with the residual's derivatives by hand."""
    burgers, model = example("burgers"), example("network").field(inputs=(3,), outputs=1, hidden=(6,))
    source = burgers.burgers(seed=0, device=CPU, points=7, queries=5)
    tasks = fmaml.Task(*(fmaml.Batch(b.x.double(), b.y.double()) for b in source.sample("train", 0, range(3))))
    params = {name: p.double() for name, p in model.init(torch.Generator().manual_seed(0)).items()}

    def loss(params, batch):
        x = batch.x.clone().requires_grad_()
        u = model.apply(params, x)
        (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first[:, 0].sum(), x, create_graph=True)
        wrong = first[:, 1:2] + u * first[:, :1] - batch.x[:, 2:] * second[:, :1]
        return (wrong / (1 + 0.1 * first[:, :1].detach().abs())).square().mean()

    start = {name: p.clone().requires_grad_() for name, p in params.items()}
    total = torch.zeros(())
    for i in range(3):
        task, phi = take(tasks, i), start
        for _ in range(2):
            grads = torch.autograd.grad(loss(phi, task.support), list(phi.values()), create_graph=True)
            phi = {name: p - 0.05 * g for (name, p), g in zip(phi.items(), grads, strict=True)}
        total = total + loss(phi, task.query) / 3
    expected = dict(zip(start, torch.autograd.grad(total, list(start.values())), strict=True))

    algorithm = fmaml.maml(source.loss(model.apply), inner_lr=0.05, steps=2)
    found = fmaml.meta_grad(algorithm, params, tasks, batching="vmap")[0]
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-8, atol=1e-12), name


@pytest.mark.pictures
def test_a_run_is_reported_with_both_metrics(example, tmp_path):
    assert main(["run", "examples/burgers/burgers.yaml", *SMALL, "--out", str(tmp_path / "run")]) == 0
    results = (tmp_path / "run/results.json").read_text(encoding="utf-8")
    assert "meta_sgd, relative error" in results
    assert "joint training, fine-tuned, mean residual" in results
    assert (tmp_path / "run/solutions.png").exists()


@pytest.mark.pictures
def test_the_script_trains_and_films(example, tmp_path, capsys):
    solve = example("solve")
    apply, solved = solve.solve(meta_steps=1)
    assert "relative error after 5 inner steps" in capsys.readouterr().out
    solve.film(apply, {viscosity: solved[viscosity] for viscosity in (0.006, 0.045)}, tmp_path / "burgers.gif")
    with Image.open(tmp_path / "burgers.gif") as film:
        assert getattr(film, "n_frames", 1) == solve.FRAMES
