"""The ratings of `examples/ratings/`: on made users and on small files, trained for seconds."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch

import fmaml
from fmaml.cli.main import main

TOP = Path(__file__).parent.parent
CPU = torch.device("cpu")
SMALL = ["train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2", "eval.tasks=40", "--device", "cpu"]
FILMS = 40


@pytest.fixture
def example(monkeypatch):
    """The modules by name, with the checkout as the current folder."""
    monkeypatch.chdir(TOP)
    monkeypatch.syspath_prepend(str(TOP))
    return lambda name: import_module(f"examples.ratings.{name}")


@pytest.fixture
def folder(tmp_path) -> Path:
    """60 users in MeLU's form: even ones give 5 stars to comedies and 1 to dramas, odd ones the reverse.

    Film numbers from 1 on; odd films are comedies. User u lacks film 1 + u % 40. Films above 30 are in the other file.
    """
    movies = [f"{film}::Film {film}::{'Comedy' if film % 2 else 'Drama'}" for film in range(1, FILMS + 1)]
    (tmp_path / "movies.dat").write_text("\n".join(movies), encoding="latin-1")
    for name, films in (("user_cold_state", range(1, 31)), ("user_and_item_cold_state", range(31, FILMS + 1))):
        seen = {u: [film for film in films if film != 1 + u % FILMS] for u in range(60)}
        stars = {u: [5 if (film + u) % 2 else 1 for film in own] for u, own in seen.items()}
        (tmp_path / f"{name}.json").write_text(json.dumps({u: [*map(str, own)] for u, own in seen.items()}))
        (tmp_path / f"{name}_y.json").write_text(json.dumps(stars))
    return tmp_path


def test_it_is_trained_without_data_and_compared(example, tmp_path, monkeypatch):
    assert main(["run", "examples/ratings/ratings.yaml", *SMALL, "--out", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run/results.json").read_text(encoding="utf-8"))["results"]
    compare = example("compare")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare, "SHOTS", (5, 10))
    compare.main(tmp_path / "run")
    rows = json.loads(Path("ratings.json").read_text(encoding="utf-8"))
    assert Path("ratings.png").stat().st_size > 10_000
    assert [(row["shots"], row["users"]) for row in rows] == [(5, 200)] * 5 + [(10, 200)] * 5
    error = {(row["name"], row["shots"]): row["mean"] for row in rows}
    by_size = [error["item mean", 10], error["shrunk bias", 10], error["factorisation", 10]]
    assert by_size == sorted(by_size, reverse=True)
    assert error["factorisation", 10] < error["factorisation", 5] < 0.8 * error["item mean", 5]
    assert error["network, adapted", 10] < error["shrunk bias", 10]
    last = rows[-1]
    assert last["name"] == "network, adapted"
    assert last["lead"] == {"mean": 0.0, "ci95": 0.0}
    assert rows[5]["lead"]["mean"] == pytest.approx(error["network, adapted", 10] - error["item mean", 10])
    assert set(results) == {"meta_sgd", "item mean", "shrunk bias", "factorisation"}


def test_ratings_of_the_files_become_tasks(example, folder):
    """Nobody's film twice, none lost; stars and films belong together; a genre is a feature."""
    module = example("ratings")
    source = module.ratings(seed=0, device=CPU, root=str(folder), shots=10, train_shots=(5, 10), train_queries=7)
    users = {split: module.Users(**own) for split, own in source.data.items()}
    assert [len(own.counts) for own in users.values()] == [42, 6, 12]
    numbers, which = module.sample_tasks(users, 10, (5, 10, 7), 0, "test", 0, range(12))
    task = source.sample("test", 0, range(12))
    assert which.tolist() == [*range(12)]
    assert task.support.x.shape == (12, 10, example("baselines").WIDTH + 2 + 2)  # factors, bias, count and genres
    for i in range(12):
        films = torch.cat([numbers.support.x[i], numbers.query.x[i]])
        assert len(films.unique()) == len(films) == FILMS - 1
        odd = (films % 2).float()
        stars = torch.cat([task.support.y[i], task.query.y[i]])[:, 0]
        assert stars.unique().tolist() == [1, 5]
        assert len(set((stars == 5).float().add(odd).remainder(2).tolist())) == 1  # one taste
        assert torch.equal(torch.cat([task.support.x[i], task.query.x[i]])[:, -2:], torch.stack([odd, 1 - odd], 1))
    again = source.sample("test", 0, range(3, 5))
    assert torch.equal(again.query.x, task.query.x[3:5])
    sizes = set()
    for step in range(10):
        support, query = source.sample("train", step, range(4))
        sizes |= set((support.y > 0).sum((1, 2)).tolist())
        assert query.y.shape == (4, 7, 1)
        assert (query.y > 0).all()
    assert {5, 10} <= sizes <= {*range(5, 11)}


def test_baselines_are_those_of_hand(example, folder):
    """Every film has a mean of about 3 stars; a taste known from ten ratings predicts the others."""
    source = example("ratings").ratings(seed=0, device=CPU, root=str(folder))
    found = source.references("test", 0, range(12))
    assert found["item mean"].mean() == pytest.approx(4.0, rel=0.1)  # 3 stars against 1 or 5
    assert found["factorisation"].max() < 0.6


def test_ridge_and_bias_by_hand(example):
    """Against the normal equations of a row, and two ratings of 5 beside three of the mean 2."""
    baselines = example("baselines")
    noise = torch.Generator().manual_seed(0)
    kinds, rest = torch.randn(6, 3, generator=noise).double(), torch.randn(2, 6, generator=noise).double()
    seen = torch.tensor([[1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 0, 1]]).double()
    penalties = torch.tensor([1.0, 2.0, 3.0]).double()
    found = baselines.ridge(seen, seen * rest, kinds, penalties)
    for i in range(2):
        own = kinds[seen[i] > 0]
        gradient = own.T @ (own @ found[i] - rest[i][seen[i] > 0]) + penalties * found[i]
        assert gradient.abs().max() < 1e-12
    assert torch.allclose(baselines.ridge(seen, seen * rest, kinds.expand(2, 6, 3), penalties), found)
    stars = torch.tensor([[5.0, 0], [5, 0], [0, 1], [0, 1], [0, 1], [0, 1]]).double()
    table = baselines.Table(stars, (stars > 0).double())
    fitted = baselines.biases(table, 3.0, 1e12)
    overall = 14 / 6
    assert fitted.bias[0] == pytest.approx((3 * overall + 10) / 5)
    assert fitted.mean.tolist() == [5, 1]


def test_training_users_see_films_without_their_own_ratings(example):
    """A film that one user alone has rated is as unknown in that user's fold; all others see the rating."""
    baselines = example("baselines")
    stars = torch.full((10, 3), 3.0).double()
    stars[:, 2] = 0
    stars[6, 2] = 5  # user 6 is in fold 1
    table = baselines.Table(stars, (stars > 0).double())
    fitted = baselines.factors(table, baselines.biases(table, 2.0, 2.0), 5.0)
    parts = baselines.features(table, fitted)
    assert parts.shape == (baselines.FOLDS + 1, 3, baselines.WIDTH + 2)
    assert parts[1, 2, -2] == pytest.approx(float(fitted.overall))
    assert parts[1, 2, : baselines.WIDTH].abs().max() == 0
    assert parts[:, 2, -1].expm1().round().tolist() == [1, 0, 1, 1, 1, 1]
    assert (parts[[0, 2, 3, 4, 5], 2, -2] > parts[1, 2, -2] + 0.3).all()


def test_padding_is_not_counted(example):
    module = example("ratings")
    output, y = torch.tensor([[3.0], [4.0], [9.0]]), torch.tensor([[5.0], [1.0], [0.0]])
    assert module.squared_error(output, y) == pytest.approx((4 + 9) / 2)
    assert module.pull(output, y) == pytest.approx((4 + 9) / 10)


def test_the_network_is_the_sum_that_it_says(example):
    """Film's mean + user's mean + kind . taste, with the perceptron's last layer at 0."""
    model = example("taste").taste(inputs=(12,), outputs=1, hidden=4, kinds=2)
    params = model.init(torch.Generator().manual_seed(0))
    params = {name: 0 * p if name.startswith("layer2") else p for name, p in params.items()}
    params["user.mean"], params["user.taste"] = torch.tensor([0.5]), torch.arange(10.0)
    x = torch.randn(3, 12, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(model.apply(params, x)[:, 0], x[:, 8] + 0.5 + x[:, :8] @ torch.arange(8.0))
    assert isinstance(model, fmaml.Model)


def test_a_folder_without_files_and_too_many_ratings_are_refused(example, tmp_path):
    ratings = example("ratings").ratings
    with pytest.raises(ValueError, match=r"has no user_cold_state\.json"):
        ratings(seed=0, device=CPU, root=str(tmp_path))
    with pytest.raises(ValueError, match="must be below 30"):
        ratings(seed=0, device=CPU, shots=30)
