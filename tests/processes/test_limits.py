"""Too little memory, or no more threads: one line that says so, with a cure, and an exit code, never a traceback."""

import os
import resource
import subprocess
import sys
import threading
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest
from children import ended

import fmaml
from fmaml.cli.main import main
from fmaml.data.sources.glyphs import draw_all_characters
from fmaml.processes.limits import LEAST_ADDRESS_SPACE

SMALL = ["omniglot", "data.name=glyphs", "train.meta_steps=2", "train.meta_batch=4", "train.validate_tasks=2"]
SMALL += ["train.baseline=false", "eval.tasks=2"]
MB = 1_000_000


def run_within(address_space: int, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A run in a process that may use so many bytes of address space."""
    return subprocess.run(
        [sys.executable, "-m", "fmaml", "run", *SMALL, *overrides],
        env={**os.environ, "PYTHONPATH": str(Path(fmaml.__file__).parent.parent)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("limit", [100 * MB, 300 * MB, 450 * MB, 600 * MB, 1000 * MB, LEAST_ADDRESS_SPACE - 1])
def test_a_limit_below_what_torch_takes_is_told_before_it_is_imported(tmp_path, limit):
    done = run_within(limit, "--out", str(tmp_path / "out"))
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert line.startswith(f"fmaml: out of memory: this process may use {limit / 1e6:,.0f} MB of address space")
    assert line.endswith("raise the limit: `ulimit -v unlimited`")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["test omniglot", "predict omniglot photo.png --support .", "demo --no-browser"])
def test_commands_for_trained_models_tell_it_too(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").touch()
    monkeypatch.setattr("fmaml.processes.limits.address_space_limit", lambda: 500 * MB)
    assert main(command.split()) == 2
    assert "may use 500 MB of address space" in capsys.readouterr().err.splitlines()[-1]


def test_a_small_run_fits_in_what_is_asked_for(tmp_path):
    done = run_within(LEAST_ADDRESS_SPACE, "model.width=8", "data.queries=2", "--out", str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_run_that_is_too_large_for_the_limit_names_what_to_lower(tmp_path):
    def within_what_it_has_and_a_little() -> int:
        limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + LEAST_ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        return main(["run", *SMALL, "model.width=2000", "--out", str(tmp_path / "out")])

    done = ended(within_what_it_has_and_a_little)
    last = done.stderr.splitlines()[-1]
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert last.startswith("fmaml: out of memory")
    assert "lower the largest of model.width = 2000, " in last


class Failing(MetaPathFinder):
    """Fails to import one module, in the words of an error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def find_spec(self, fullname, path, target=None):
        if fullname == "fmaml.training.run_experiment":
            raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        ImportError("libopenblas.so: cannot allocate memory in static TLS block"),
        MemoryError(),
    ],
    ids=repr,
)
def test_an_import_that_lacks_memory_is_told_in_one_line(monkeypatch, capsys, tmp_path, error):
    monkeypatch.delitem(sys.modules, "fmaml.training.run_experiment", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Failing(error), *sys.meta_path])
    assert main(["run", *SMALL, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fmaml: out of memory while importing torch; close other programs")


def test_another_error_of_an_import_is_not_called_want_of_memory(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "fmaml.training.run_experiment", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Failing(ImportError("No module named 'torch'")), *sys.meta_path])
    with pytest.raises(ImportError, match="No module named"):
        main(["run", *SMALL, "--out", str(tmp_path / "out")])


def test_threads_that_cannot_be_started_are_told_in_one_line(monkeypatch, capsys, tmp_path):
    def refused(self):
        raise RuntimeError("can't start new thread")

    draw_all_characters.cache_clear()
    monkeypatch.setattr(threading.Thread, "start", refused)
    assert main(["run", *SMALL, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fmaml: the system starts no more threads; close other programs, or raise the limit on proc")


def test_memory_that_runs_out_in_any_command_is_told_in_one_line(monkeypatch, capsys):
    def short() -> str:
        raise MemoryError

    monkeypatch.setattr("fmaml.config.listing.overview", short)
    assert main(["ls"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fmaml: out of memory; ")
