"""Arrays of features as N-way K-shot tasks: which row becomes which class, and the arrays that are refused."""

from typing import Any

import numpy as np
import pytest
import torch

import fmaml
from fmaml.cli.main import main
from fmaml.data.sources.features import feature_arrays
from fmaml.errors import Error

CPU = torch.device("cpu")
CLASSES, EACH, WIDTH = 16, 6, 4
Y = np.arange(CLASSES).repeat(EACH)
X = (Y[:, None] * 10 + np.arange(WIDTH) + np.tile(np.arange(EACH), CLASSES)[:, None] / 100).astype(np.float32)


@pytest.fixture
def arrays(tmp_path):
    """X.npy and y.npy: row i of class c is 10 c + (0 .. 3) + i / 100."""
    order = np.random.default_rng(0).permutation(len(X))
    np.save(tmp_path / "X.npy", X[order])
    np.save(tmp_path / "y.npy", Y[order])
    return tmp_path


def make(folder, **settings: Any) -> fmaml.data.Source:
    given = {"file": str(folder / "X.npy"), "labels": str(folder / "y.npy"), "ways": 3, "shots": 2, "queries": 3}
    return feature_arrays(seed=0, device=CPU, **{**given, **settings})


def test_the_examples_of_a_way_are_of_one_class_and_all_different(arrays, capsys):
    source = make(arrays)
    assert source.inputs == (WIDTH,)
    assert "X.npy: 16 classes, 96 examples of 4 features: 6 of each class" in capsys.readouterr().err
    tasks = source.sample("train", 0, range(20))
    assert tasks.support.x.shape == (20, 6, WIDTH)
    assert tasks.query.x.shape == (20, 9, WIDTH)
    for task in range(20):
        x = torch.cat([tasks.support.x[task], tasks.query.x[task]])
        y = torch.cat([tasks.support.y[task], tasks.query.y[task]])
        assert torch.allclose(x - x[:, :1], torch.arange(WIDTH).float(), atol=1e-4)  # a whole row
        assert len({round(value, 2) for value in x[:, 0].tolist()}) == 15
        assert len({(x[y == way, 0] / 10).long().unique().item() for way in range(3)}) == 3


def test_a_folder_of_arrays_and_names_give_the_same_tasks(arrays):
    folder = arrays / "classes"
    folder.mkdir()
    for name in np.unique(Y):
        np.save(folder / f"{name}.npy", X[name == Y].astype(np.float64))
    np.save(arrays / "sorted.npy", X)
    np.save(arrays / "names.npy", Y.astype(str))
    one = make(arrays, file=str(folder), labels=None).sample("test", 3, range(4))
    for labels in ("names.npy", "y.npy"):
        np.save(arrays / "y.npy", Y)
        two = make(arrays, file=str(arrays / "sorted.npy"), labels=str(arrays / labels)).sample("test", 3, range(4))
        assert torch.equal(one.query.x, two.query.x)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            X,
            Y[:-1],
            r"data.labels = .*y.npy: int64 \[95\]; X.npy has 96 rows, so give a whole number or a name for each",
        ),
        (X, Y.astype(float), r"data.labels = .*: float64 \[96\]"),
        (X[:, 0], Y, r"data.file = .*X.npy: float32 \[96\]; give numbers \[examples, features\]"),
        (X.astype(str), Y, r"data.file = .*X.npy: <U32 \[96, 4\]; give numbers"),
        (np.where(X[7, 2] == X, np.nan, X), Y, r"data.file = .*X.npy: row 7 has a value that is not finite"),
        (X[:12], Y[:12], r"2 classes cannot be split into train, val and test"),
        (X[:, :0], Y, r"data.file = .*: float32 \[96, 0\]"),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(x, y, message, tmp_path):
    np.save(tmp_path / "X.npy", x)
    np.save(tmp_path / "y.npy", y)
    with pytest.raises(Error, match=message) as raised:
        make(tmp_path)
    assert "\n" not in str(raised.value)


def test_files_that_are_no_arrays_are_one_line(arrays):
    with pytest.raises(Error, match=r"data.file = .*none.npy: No such file or directory; name an array"):
        make(arrays, file=str(arrays / "none.npy"))
    with pytest.raises(Error, match=r"data.file = .*X.npy: no folder of arrays; give data.labels=y.npy for an array"):
        make(arrays, labels=None)
    (arrays / "y.npy").write_text("0,1,2")
    with pytest.raises(Error, match=r"data.labels = .*y.npy: .*; name an array that numpy.save wrote"):
        make(arrays)
    folder = arrays / "classes"
    folder.mkdir()
    for width in (3, 4):
        np.save(folder / f"{width}.npy", X[:, :width])
    with pytest.raises(Error, match=r"4.npy has 4 features, and 3.npy has 3; give all the same"):
        make(arrays, file=str(folder), labels=None)


def test_an_array_of_objects_runs_nothing(arrays):
    np.save(arrays / "y.npy", np.array([{"a": 1}] * len(X), dtype=object), allow_pickle=True)
    with pytest.raises(Error, match=r"data.labels = .*y.npy: Object arrays cannot be loaded"):
        make(arrays)


@pytest.mark.parametrize(  # prototypes of features have nothing to train
    ("algorithm", "meta_steps"), [("{name: r2d2, head: layer1}", 2), ("{name: protonet, head: layer1}", 0)]
)
def test_a_run_learns_from_features_and_adapts_to_arrays(arrays, algorithm, meta_steps, tmp_path, capsys):
    np.save(arrays / "X.npy", x := np.eye(CLASSES)[Y])
    np.save(arrays / "y.npy", Y)
    data = f"data={{name: features, file: {arrays}/X.npy, labels: {arrays}/y.npy, ways: 3, shots: 2, queries: 3}}"
    words = ["run", "signals", data, "model={name: mlp, hidden: []}", f"algorithm={algorithm}", "eval.steps=0"]
    small = [f"train.meta_steps={meta_steps}", "train.meta_batch=2", "train.validate_tasks=2", "eval.tasks=4"]
    small += ["--device", "cpu"]
    assert main([*words, *small, "--dry-run"]) == 0
    assert "3-way 2-shot, 3 queries a class" in capsys.readouterr().out
    assert main([*words, *small, "--out", str(tmp_path / "run")]) == 0
    adapted = fmaml.load(tmp_path / "run").adapt(x[::3], Y[::3])
    assert adapted.outputs(x).argmax(-1).tolist() == Y.tolist()
