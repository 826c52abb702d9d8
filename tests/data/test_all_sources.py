"""Every data source of the registry: its tasks depend on their counters alone, and have what its entry says."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from PIL import Image

from fmaml.config.build import call_by_name
from fmaml.config.registry import TABLE
from fmaml.config.signature import REQUIRED, function_settings
from fmaml.config.source_text import find_function
from fmaml.data.source import Source
from fmaml.tree import leaves, map_leaves
from fmaml.types import Batch, Task

TABLE_COLUMNS = {"task": "label", "target": "a"}
SMALL = {**TABLE_COLUMNS, "ways": 3, "shots": 2, "queries": 2, "length": 16, "size": 16}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """A folder of images a class, for the source that has no data of its own."""
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for name in "abcdefghijklmnop":
        (root / name).mkdir()
        for i in range(5):
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def writings(tmp_path_factory) -> Path:
    """A folder of texts, for the source that has none of its own."""
    root = tmp_path_factory.mktemp("texts")
    for name in "abcdefghijklmnop":
        articles = [f"{name} writes of {i}: " + f"{name}{i} " * 20 for i in range(8)]
        (root / f"{name}.txt").write_text("\n\n".join(articles))
    return root


@pytest.fixture(scope="module")
def numbers_file(tmp_path_factory) -> Path:
    """A table of 16 values of a column, in 5 rows each, for the sources that read one."""
    path, rng = tmp_path_factory.mktemp("numbers") / "table.csv", np.random.default_rng(0)
    rows = [f"{name},{','.join(map(str, rng.normal(size=4)))}" for name in "abcdefghijklmnop" for _ in range(5)]
    path.write_text("\n".join(["label,a,b,c,d", *rows]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def arrays(tmp_path_factory) -> Path:
    """A folder of arrays of features, 16 classes of 5 examples."""
    root, rng = tmp_path_factory.mktemp("arrays"), np.random.default_rng(0)
    for name in "abcdefghijklmnop":
        np.save(root / f"{name}.npy", rng.normal(size=(5, 8)))
    return root


@pytest.fixture(params=TABLE["data"])
def name(request) -> str:
    return request.param


@pytest.fixture
def make(name, photographs, writings, numbers_file, arrays, request) -> Callable[[int], Source]:
    takes = function_settings(find_function(TABLE["data"][name].target))
    if "root" in takes and takes["root"].default is None:
        request.getfixturevalue("real_data")
    given: dict[str, Any] = {key: value for key, value in SMALL.items() if key in takes}
    own = writings if name == "texts" else photographs
    given |= {"root": str(own)} if "root" in takes and takes["root"].default is REQUIRED else {}
    given |= {"file": str(arrays if name == "features" else numbers_file)} if "file" in takes else {}
    return lambda seed: call_by_name("data", {"name": name, **given}, seed=seed, device=torch.device("cpu"))


def same(a: Task, b: Task) -> bool:
    return all(torch.equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def test_a_task_is_a_function_of_seed_split_step_and_number_alone(make):
    source, again, other = make(0), make(0), make(1)
    whole = source.sample("train", 3, range(5))
    assert same(again.sample("train", 3, range(5)), whole)
    assert same(source.sample("train", 3, range(2, 5)), map_leaves(lambda leaf: leaf[2:], whole))
    for split, step, drawn in (("val", 3, source), ("test", 3, source), ("train", 4, source), ("train", 3, other)):
        assert not same(drawn.sample(split, step, range(5)), whole)


def test_a_pickled_source_gives_the_same_tasks_and_scores(make, name):
    source, ours = make(0), TABLE["data"][name].target.startswith("fmaml.")
    pickled = pickle.dumps(source) if ours else cloudpickle.dumps(source)  # another's may hold a function in a function
    copied = pickle.loads(pickled)
    assert type(copied) is Source
    for split in ("train", "val", "test"):
        assert same(copied.sample(split, 3, range(2)), source.sample(split, 3, range(2)))
    assert (copied.inputs, copied.outputs, copied.about) == (source.inputs, source.outputs, source.about)
    assert (copied.references is None) == (source.references is None)
    if source.references and copied.references:
        expected, found = source.references("test", 0, range(2)), copied.references("test", 0, range(2))
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    y = source.sample("test", 0, range(1)).query.y[0]
    output = y + 1 if y.is_floating_point() else torch.rand(*y.shape, source.outputs)
    assert torch.equal(copied.criterion(output, y), source.criterion(output, y))
    assert torch.equal(copied.metric.fn(output, y), source.metric.fn(output, y))
    data = numbers(source.data)
    assert all(torch.equal(x, y) for x, y in zip(numbers(copied.data), data, strict=True))
    assert len(pickled) < 1.1 * sum(leaf.nbytes for leaf in data) + 20_000, "it holds more than its data"


def numbers(tree: Any) -> list[torch.Tensor]:
    return [torch.as_tensor(leaf) for leaf in leaves(tree) if leaf is not None]


def test_the_tasks_have_what_the_entry_says(make, name):
    source, gives = make(0), TABLE["data"][name].gives
    for batch in source.sample("test", 0, range(4)):
        assert_traits(batch, gives, source)
    support, query = source.sample("test", 0, range(4))
    for seen, asked in zip(support.x, query.x, strict=True):  # of one task no example is in both sets
        assert not (seen.flatten(1)[:, None] == asked.flatten(1)).all(-1).any()
    assert {"task", "protocol"} <= source.about.keys()


def assert_traits(batch: Batch, gives: frozenset[str], source: Source) -> None:
    """Each trait is given exactly where the tasks have it."""
    x, y = batch
    assert source.loss or tuple(x.shape[2:]) == source.inputs
    assert ("numbers" in gives) == x.is_floating_point()
    assert ("images" in gives) == (x.is_floating_point() and x.ndim == 5)
    assert ("signals" in gives) == (x.is_floating_point() and x.ndim == 4)
    assert ("symbols" in gives) == (x.dtype == torch.int64 and x.shape == y.shape)
    assert ("classes" in gives) == (y.dtype == torch.int64 and y.ndim == 2)
    single = "own_loss" not in gives and (y.ndim == 2 or (y.is_floating_point() and y.ndim == 3))
    assert ("single_targets" in gives) == single
    if "images" in gives:
        assert 0 <= x.min() < x.max() <= 1
    if "symbols" in gives:
        assert 0 <= x.min() < x.max() < source.outputs
    if "classes" in gives:
        assert y.shape == x.shape[:2]
        assert 0 <= y.min() < y.max() < source.outputs
