"""`fmaml run` with several seeds or values, as a person meets it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fmaml.checkpoints.run_lock import locked
from fmaml.cli.main import main
from fmaml.config.load import load_config
from fmaml.config.packaged import FOLDER
from fmaml.errors import Error
from fmaml.report.run_list import last_logged_step
from fmaml.sweep import workers
from fmaml.sweep.results import summarise
from fmaml.sweep.show import print_sweep
from fmaml.sweep.state import Sweep, SweepRun, wait_until_free

TINY = ["data.shots=3", "data.queries=3", "model.hidden=[8]", "train.meta_steps=3", "train.meta_batch=2"]
TINY += ["train.validate_tasks=2", "train.baseline=false", "eval.tasks=4", "eval.steps=1"]


def refusal(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1), error
    return error.removeprefix("fmaml: ").strip()


def test_in_processes_of_their_own(tmp_path):
    """The command itself: two processes at a time, one of which fails; the parent needs no torch."""
    code = "import sys; from fmaml.cli.main import main; code = main(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    command = ["run", "sinusoid", *TINY, "algorithm.inner_lr=0.01,1.0e+30", "--device", "cpu", "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent.parent)}
    ended = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert ended.stdout.splitlines()[-1] == "1 False", ended.stdout + ended.stderr
    (folder,) = (tmp_path / "runs/sinusoid").iterdir()
    saved = json.loads((folder / "sweep.json").read_text())
    assert [run["state"] for run in saved["runs"]] == ["finished", "failed"]
    for run in saved["runs"]:
        own = [word for word in command if "=" in word and not word.startswith("algorithm.")]
        assert run["config"] == load_config(
            "sinusoid", [*own, f"algorithm.inner_lr={run['settings']['algorithm.inner_lr']}"]
        )
    good = folder / "inner_lr=0.01"
    assert {"results.json", "model.safetensors", "functions.png", "output.txt"} <= {
        path.name for path in good.iterdir()
    }
    results = json.loads((good / "results.json").read_text())
    assert results["results"] == saved["runs"][0]["results"]
    assert "everything is in" in (good / "output.txt").read_text()
    assert f"`fmaml resume {folder.relative_to(tmp_path)}` continues them" in ended.stdout


def test_dry_run_checks_every_combination_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["run", "sinusoid", *TINY, "--repeat", "2", "--dry-run"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.count("nothing was trained") == 2
    assert "2/2  seed=1\n" in said
    assert main([*command, 'algorithm.only=["*"],["nothing"]']) == 2
    out, error = capsys.readouterr()
    assert out.count("nothing was trained") == 2
    assert [line.partition(": algorithm")[0] for line in error.splitlines()] == [
        "fmaml: seed=0,only=nothing",
        "fmaml: seed=1,only=nothing",
    ]
    assert not list(tmp_path.iterdir())


def test_mistakes_are_one_line_with_the_cure(tmp_path, capsys, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("name: x")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/sweep.json").write_text("{}")
    seeds = ["run", "sinusoid", "--seeds", "0,1", "--out"]
    full, run, sweep = (str(tmp_path / name) for name in ("full", "run", "sweep"))
    assert refusal(capsys, *seeds, full) == f"--out {full}: holds files already, and no sweep; name a new folder"
    assert refusal(capsys, *seeds, run, "--resume") == f"--out {run}: holds one run, and no sweep; name a new folder"
    assert refusal(capsys, *seeds, sweep).startswith(f"--out {sweep}: holds a sweep already; add --resume")
    assert "damaged" in refusal(capsys, "resume", sweep)
    assert f"`fmaml resume {sweep}/RUN eval.tasks=3`" in refusal(capsys, "resume", sweep, "eval.tasks=3")
    assert "--jobs: there is only one run" in refusal(capsys, "run", "sinusoid", "--jobs", "2")
    assert "--jobs: there is only one run" in refusal(capsys, "resume", run, "--jobs", "2")
    assert "--repeat: given together with --seeds" in refusal(
        capsys, "run", "sinusoid", "--seeds", "0", "--repeat", "2"
    )
    assert "--seeds: 0;1: must be whole numbers" in refusal(capsys, "run", "sinusoid", "--seeds", "0;1")
    assert "--repeat: 0: must be a whole number, 1 or more" in refusal(capsys, "run", "sinusoid", "--repeat", "0")
    assert refusal(capsys, "show", "sinusoid", "algorithm.inner_lr=0.1,0.2").endswith("must be a number, above 0")
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert refusal(capsys, *seeds, "new").startswith("several runs do not work under torchrun; start them without it")


def test_cores_are_divided_unless_the_user_has(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [workers.threads_of_each(jobs) for jobs in (1, 2, 3, 100)] == [None, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert workers.threads_of_each(2) is None


def test_a_run_that_is_still_to_stop_is_waited_for(tmp_path):
    told: list[str] = []
    with locked(tmp_path), pytest.raises(Error, match="in use by process"):
        wait_until_free(tmp_path, told.append, wait_s=0.2)
    wait_until_free(tmp_path, told.append)
    assert told == [f"waiting for {tmp_path}: a run of the previous sweep is still stopping"]


def test_the_last_step_is_read_of_a_log_that_is_being_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert last_logged_step(tmp_path) == 0
    path.write_text('{"kind": "train", "step": 20}\n{"kind": "tr')
    assert last_logged_step(tmp_path) == 20


def sweep_of(means: dict[tuple[int, float], float | None], style: str = ".2%") -> Sweep:
    """A sweep over seeds and rates; a rate whose mean is None has failed."""
    runs = []
    for (seed, rate), mean in means.items():
        config = load_config("omniglot", [f"seed={seed}", f"algorithm.inner_lr={rate}"])
        code, message = (1, "it diverged") if mean is None else (0, "")
        settings = {"seed": seed, "algorithm.inner_lr": rate}
        runs.append(SweepRun(f"seed={seed},inner_lr={rate}", settings, config, code, message))
        if mean is not None:
            score = {"mean": mean, "ci95": 0.004}
            labels = ["transductive (all queries together)", "inductive (each query alone with the support set)"]
            runs[-1].results = {
                "metric": "accuracy",
                "more_is_better": True,
                "style": style,
                "results": {label: [score] for label in labels},
                "validation": {"step": 1, "mean": 1 - mean, "ci95": 0.01},  # so that it shows which one chooses
            }
    return Sweep("omniglot", "cpu", runs)


def test_validation_chooses_among_the_settings_whose_seeds_are_all_done():
    sweep = sweep_of({(0, 0.1): 0.9, (1, 0.1): 0.8, (0, 0.2): 0.7, (1, 0.2): 0.6, (0, 0.4): 0.1, (1, 0.4): None})
    summary = summarise(sweep)
    assert [entry["best"] for entry in summary] == [False, True, False]
    assert [entry["missing"] for entry in summary] == [[], [], [1]]


@pytest.mark.parametrize("width", [20, 80, 200])
def test_every_number_is_whole_in_a_terminal_of_any_width(width, capsys):
    sweep = sweep_of({(0, 0.1): 0.9, (1, 0.1): 0.8, (0, 0.2): 0.7, (1, 0.2): None})
    print_sweep(Console(width=width), sweep, summarise(sweep))
    out = capsys.readouterr().out
    numbers = [
        "85.00% ± 63.53%",
        "sd 7.07%",
        "tasks ± 0.40%",
        "inner_lr=0.1 *",
        "1 of 2 seeds, 1 failed",
        "70.00% ± 0.40%",
    ]
    assert all(number in out for number in numbers), out
    assert ("┃" in out) == (width >= 80)
    assert "seed=1,inner_lr=0.2: failed with exit code 1: it diverged" in out


def test_the_words_of_a_run_that_failed_are_its_last(tmp_path):
    (tmp_path / "output.txt").write_text("fmaml: of the process before\n")
    said_before = (tmp_path / "output.txt").stat().st_size
    worker = workers.Worker(None, None, tmp_path / "output.txt", said_before)  # type: ignore[arg-type]
    assert workers.outcome_of(worker, 3) == (3, "it printed nothing")
    with (tmp_path / "output.txt").open("a") as file:
        file.write("fmaml: a note\nfmaml: cannot go on\n")
    assert workers.outcome_of(worker, 1) == (1, "cannot go on")
    assert "(SIGKILL)" in workers.outcome_of(worker, -9)[1]
    assert workers.outcome_of(worker, 143) == (None, "")


def test_one_run_goes_the_way_it_always_went(monkeypatch, capsys, tmp_path):
    """Neither a comma in a list nor one in a text makes several runs."""
    seen = []
    monkeypatch.setattr("fmaml.cli.run_commands.start_run", lambda config, **options: seen.append(config) or 0)
    assert main(["run", "sinusoid", "model.hidden=[20,20]", "train.start=a,b"]) == 0
    assert seen == [load_config("sinusoid", ["model.hidden=[20,20]", "train.start=a,b"])]
    assert not Path(tmp_path / "runs").exists()
