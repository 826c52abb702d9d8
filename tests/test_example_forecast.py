"""The forecasts of `examples/forecast/`: on made series, and on a small file, trained for seconds."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch

import fmaml
from fmaml.cli.main import main

TOP = Path(__file__).parent.parent
CPU = torch.device("cpu")
SMALL = ["train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2", "eval.tasks=2", "--device", "cpu"]


@pytest.fixture
def example(monkeypatch):
    """The modules by name, with the checkout as the current folder."""
    monkeypatch.chdir(TOP)
    monkeypatch.syspath_prepend(str(TOP))
    return lambda name: import_module(f"examples.forecast.{name}")


def write(path: Path, series: dict[str, dict[int, float]]) -> str:
    rows = [f"{name},{year},{value!r}" for name, values in series.items() for year, value in values.items()]
    path.write_text("\n".join(["Country,Year,Total", *rows]), encoding="utf-8")
    return str(path)


def write_growth(path: Path) -> tuple[str, list[str]]:
    """25 series from 1900 to 1959: number i grows by i + 2 percent a year, and by 1,000 percent from 1950 on."""
    names, years = [f"nation {i}" for i in range(25)], range(1900, 1960)
    series = {
        name: {year: (1.02 + i / 100) ** min(year - 1949, 0) * 11.0 ** max(year - 1949, 0) for year in years}
        for i, name in enumerate(names)
    }
    return write(path, series), names


def test_it_is_trained_without_data(example, tmp_path):
    assert main(["run", "examples/forecast/forecast.yaml", *SMALL, "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/report.html").exists()


def test_it_is_trained_on_a_file_and_compared(example, tmp_path, monkeypatch):
    file, _ = write_growth(tmp_path / "growth.csv")
    words = ["run", "examples/forecast/forecast.yaml", *SMALL, f"data.root={file}", "eval.tasks=5"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    monkeypatch.chdir(tmp_path)
    example("compare").main([tmp_path / "run"])
    rows = {row["forecast"]: row for row in json.loads((tmp_path / "forecast.json").read_text(encoding="utf-8"))}
    results = json.loads((tmp_path / "run/results.json").read_text(encoding="utf-8"))["results"]
    assert (tmp_path / "forecast.png").stat().st_size > 10_000
    assert [row["series"] for row in rows.values()] == [5] * 7
    assert rows["naive"]["mean"] == pytest.approx(results["naive"][0]["mean"], rel=1e-5)
    for steps, column in enumerate(["around, not adapted", "around, adapted"]):
        ours = results["examples.forecast.forecaster:around"][steps]
        assert rows[column]["mean"] == pytest.approx(ours["mean"], rel=1e-4)
        assert rows[column]["ci95"] == pytest.approx(ours["ci95"], rel=1e-4)
    assert rows["around, adapted"]["last_minus_this"]["mean"] == 0
    gain = rows["around, adapted"]["mean"] - rows["naive"]["mean"]
    assert rows["naive"]["last_minus_this"]["mean"] == pytest.approx(gain)
    by_horizon = rows["naive"]["by_horizon"]
    assert by_horizon == pytest.approx([h * by_horizon[0] for h in range(1, 6)], rel=1e-4)


def test_windows_hold_the_years_they_say(example):
    """Years 1 to 13 of changes 1, -2, 3, ..: x and y by hand, and no support target after the first query's origin."""
    forecast = example("forecast")
    window = forecast.Window(lags=2, horizons=2, shots=3, queries=2)
    assert (window.years, window.first_query, window.tested) == (10, 6, 3)
    changes = torch.tensor([1.0, -2, 3, -4, 5, -6, 7, -8, 9], dtype=torch.float64)
    logs = torch.cat([changes.new_zeros(1), changes.cumsum(0)])
    support, query = forecast.windows(logs[None], window)
    unit = 21 / 6  # of the changes before the first query's origin
    lags = torch.tensor([[1, -2], [-2, 3], [3, -4]]) / unit
    assert torch.allclose(support.x[0, :, :2], lags)
    assert torch.allclose(support.y[0], torch.tensor([[3.0, -1], [-4, 1], [5, -1]]) / unit)
    assert torch.allclose(query.x[0, :, :2], torch.tensor([[5.0, -6], [-6, 7]]) / unit)
    assert torch.allclose(query.y[0], torch.tensor([[7.0, -1], [-8, 1]]) / unit)
    assert torch.allclose(query.x[..., 2].exp(), torch.tensor(unit))
    after = logs.clone()
    after[window.first_query + 1 :] = 99.0
    changed = forecast.windows(after[None], window)
    assert torch.equal(changed.support.x, support.x)
    assert torch.equal(changed.support.y, support.y)
    assert torch.equal(changed.query.x[:, 0], query.x[:, 0])


def test_series_are_read_from_their_last_gap_on(example, tmp_path):
    years = range(2000, 2010)
    series = {
        "whole": {year: year - 1999.0 for year in years},
        "gap": {year: 2.0 for year in years if year != 2004},
        "zero": {year: float(year > 2003) for year in years},
        "ended": dict.fromkeys(range(2000, 2009), 1.0),
    }
    logs = example("forecast").read_logs(write(tmp_path / "a.csv", series), "Country", "Year", "Total")
    assert {name: len(z) for name, z in logs.items()} == {"whole": 10, "gap": 5, "zero": 6, "ended": 0}
    assert logs["whole"].exp().tolist() == pytest.approx(range(1, 11))


def test_training_sees_neither_test_series_nor_test_years(example, tmp_path):
    (file, names), tested = write_growth(tmp_path / "growth.csv"), []
    for part in range(5):
        source = example("forecast").forecast(seed=0, device=CPU, root=file, part=part)
        of_split = {split: source.sample(split, 0, range(300)) for split in ("train", "val")}
        of_split["test"] = source.sample("test", 0, range(5))
        rates = {s: {round(100 * float(u.exp().expm1())) for u in t.query.x[:, 0, -1]} for s, t in of_split.items()}
        assert len(rates["train"]) == 15
        assert len(rates["val"]) == len(rates["test"]) == 5
        assert not rates["test"] & (rates["train"] | rates["val"])
        assert not rates["train"] & rates["val"]
        assert torch.allclose(of_split["train"].query.y[..., 0], torch.tensor(1.0), atol=1e-4)
        assert (of_split["test"].query.y[:, 0, 0] > 5).all()
        tested += source.about["names"]
        with pytest.raises(fmaml.Error, match=r"there are 5 test series; give eval.tasks=5 or fewer"):
            source.sample("test", 0, range(6))
    assert sorted(tested) == sorted(names)


def test_baselines_forecast_as_they_say(example):
    baselines, source = example("baselines"), example("forecast").forecast(seed=0, device=CPU)
    task = source.sample("test", 0, range(20))
    found = source.references("test", 0, range(20))
    naive = task.query.y.abs().mean((1, 2))
    assert torch.allclose(found["naive"].float(), naive)
    assert found["ridge, series"].mean() < naive.mean()
    assert found["ridge, pooled"].mean() < naive.mean()
    x = torch.randn(50, 3, dtype=torch.float64)
    w = torch.linalg.lstsq(torch.cat([x, 2 * torch.eye(3)]), torch.cat([x[:, :1], torch.zeros(3, 1)])).solution
    assert torch.allclose(baselines.ridge(x, x[:, :1], 4.0), w)


def test_the_head_is_the_minimum_around_the_learnt_one(example):
    """By gradient descent's condition: F'(F W - Y) + S^-2 (W - W_0) = 0; at S = 0 nothing is adapted."""
    forecaster = example("forecaster")
    model = forecaster.forecaster(inputs=(4,), outputs=2, hidden=(6, 5))
    generator = torch.Generator().manual_seed(0)
    params = {name: torch.randn(p.shape, generator=generator).double() for name, p in model.init(generator).items()}
    support = fmaml.Batch(torch.randn(7, 4).double(), torch.randn(7, 2).double())
    algorithm = forecaster.around(fmaml.supervised(model.apply, fmaml.mse), model.apply, freedom=0.5)
    theta = algorithm.init(params)
    theta["freedom"][3] = 0
    head = algorithm.adapt(theta, support)["head.weight"]
    weight = head.clone().requires_grad_()
    rest = model.apply({**params, "head.weight": weight}, support.x) - support.y
    (gradient,) = torch.autograd.grad(rest.square().sum() / 2, weight)
    moved = head - params["head.weight"]
    free = torch.arange(10) != 3
    assert torch.allclose((gradient + moved / 0.25)[:, free], torch.zeros(2, 9).double(), atol=1e-9)
    assert torch.equal(moved[:, 3], torch.zeros(2).double())
    assert moved.abs().max() > 0.1
    start, adapted = algorithm.trajectory(theta, support, 1)
    assert start is theta["params"]
    assert torch.equal(adapted["head.weight"], head)


def test_adaptation_pays_where_series_differ(example):
    """Changes that follow or undo the change before, by the series: known after adaptation alone."""
    forecaster, forecast = example("forecaster"), example("forecast")
    source = forecast.forecast(seed=0, device=CPU, lags=1, horizons=1)
    model = forecaster.forecaster(inputs=source.inputs, outputs=source.outputs, hidden=(8, 8))
    algorithm = forecaster.around(fmaml.supervised(model.apply, forecast.absolute_error), model.apply, freedom=0.3)
    optimizer = fmaml.adam(3e-3)
    state = fmaml.init_state(algorithm, optimizer, model.init(torch.Generator().manual_seed(0)))
    for step in range(60):
        state, _ = fmaml.meta_step(algorithm, optimizer, state, source.sample("train", step, range(32)))
    metric = fmaml.transductive(model.apply, forecast.absolute_error)
    before, after = fmaml.evaluate(algorithm, metric, state.theta, source.sample("test", 0, range(200)), steps=1).mean(
        0
    )
    assert after < 0.95 * before
