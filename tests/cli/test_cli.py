"""The command line: what it says, what it returns, and that it answers at once."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fmaml.cli.main import main
from fmaml.config import packaged
from fmaml.config.load import load_config
from fmaml.errors import Error
from fmaml.sweep.plan import plan

QUICK = [
    ["--help"],
    ["--version"],
    ["ls"],
    ["ls", "models"],
    ["show", "omniglot"],
    ["run", "--help"],
    ["run", "omniglot", "algorithm.inner_lrr=0.4"],
]
DEFAULTS = {"device": "auto", "out": None, "dry_run": False, "resume": False, "formats": (), "stand_in": None}


@pytest.fixture
def told(capsys):
    """Runs main; returns (exit code, standard output, lines on standard error)."""

    def told(*argv: str) -> tuple[int, str, list[str]]:
        code = main(list(argv))
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return told


@pytest.fixture
def ran(monkeypatch):
    """Puts a recorder in the place of `fmaml.training.run_experiment`, which would train."""
    calls = []

    def run(config, **options):
        calls.append((config, options))
        return 0

    monkeypatch.setitem(sys.modules, "fmaml.training.run_experiment", SimpleNamespace(run=run))
    return calls


def shell(*argv: str, code: str = "from fmaml.cli.main import main; sys.exit(main(sys.argv[1:]))", **options):
    environment = {**os.environ, "PYTHONPATH": str(packaged.FOLDER.parent.parent)}
    return subprocess.run(
        [sys.executable, "-c", f"import sys; {code}", *argv],
        capture_output=True,
        text=True,
        env=environment,
        **options,
    )


@pytest.mark.parametrize("argv", QUICK, ids=" ".join)
def test_torch_is_not_imported_to_answer(argv):
    code = """
from fmaml.cli.main import main
try: main(sys.argv[1:])
finally: print("imported:", *sorted({"torch", "numpy", "matplotlib", "rich", "PIL"} & sys.modules.keys()))"""
    assert shell(*argv, code=code).stdout.splitlines()[-1] == "imported:"


def test_an_answer_takes_less_than_half_a_second():
    """Of the processor's time: on an idle machine that is what passes, and a busy one does not count against it."""

    def seconds(argv: list[str]) -> float:
        before = os.times()
        shell(*argv)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    for argv in QUICK:
        assert any(seconds(argv) < 0.5 for _ in range(8)), argv


def test_help_shows_the_commands_and_examples_that_load(told):
    code, out, err = told("--help")
    assert (code, err) == (0, [])
    examples = [line.split("  ")[1].split()[1:] for line in out.splitlines() if line.startswith("  fmaml")]
    assert {words[0] for words in examples} == {"run", "resume", "show", "ls", "predict", "compare"}
    for words in examples:
        if words[0] == "run" and words[1] != "mine.yaml":
            plan(words[1], [word for word in words[2:] if "=" in word], print, seeds=(0,))


def test_no_command_shows_first_steps_and_the_version_names_torch(told):
    assert "`fmaml --help` lists all commands" in told()[1]
    assert told("--version")[1].startswith("fmaml 0.")
    assert "torch 2." in told("--version")[1]


def test_run_hands_over_the_config_and_the_options_wherever_they_stand(told, ran):
    for argv in (
        ["omniglot", "seed=3", "--device", "cuda:1", "--out", "there", "--dry-run", "data.ways=7"],
        ["--device=cuda:1", "--dry-run", "omniglot", "--out", "there", "seed=3", "data.ways=7"],
    ):
        assert told("run", *argv) == (0, "", [])
    assert ran[0] == ran[1]
    assert ran[0] == (
        load_config("omniglot", ["seed=3", "data.ways=7"]),
        DEFAULTS | {"device": "cuda:1", "out": "there", "dry_run": True},
    )


def test_run_returns_what_the_run_returns_and_has_defaults(told, monkeypatch):
    seen = {}
    monkeypatch.setitem(
        sys.modules,
        "fmaml.training.run_experiment",
        SimpleNamespace(run=lambda config, **options: seen.update(options) or 5),
    )
    assert told("run", "omniglot")[0] == 5
    assert seen == DEFAULTS


def test_show_can_be_piped_back_in(tmp_path):
    shown = shell("show", "omniglot", "data.name=glyphs", "seed=4").stdout
    again = shell("show", "-", input=shown, cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, shown)
    assert load_config("omniglot", ["data.name=glyphs", "seed=4"])["data"]["name"] == "glyphs"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["rnu"], "rnu: unknown command; did you mean run? `fmaml --help` shows how it is used"),
        (
            ["xyz"],
            "xyz: unknown command; the commands are run, resume, show, ls, predict, adapt, export, test, demo, runs, "
            "compare, cache; ",
        ),
        (["mine.yaml"], "mine.yaml: unknown command; did you mean `fmaml run mine.yaml`?"),
        (
            ["run"],
            "the following arguments are required: EXPERIMENT; `fmaml run --help` shows how it is used",
        ),
        (["run", "omniglt"], "omniglt: no such file, and no experiment of that name; did you mean omniglot?"),
        (["run", "omniglot", "--devise", "cpu"], "--devise: unknown option; did you mean --device?"),
        (["run", "omniglot", "--dry"], "--dry: unknown option; did you mean --dry-run?"),
        (["run", "omniglot", "--seed=3"], "--seed=3: unknown option; did you mean --seeds?"),
        (["run", "omniglot", "--width=3"], "--width=3: unknown option; settings are written section.key=value"),
        (["run", "omniglot", "--device", "gpu"], "argument --device: gpu: must be one of auto, cpu, cuda"),
        (
            ["run", "omniglot", "--device", "mps"],
            "argument --device: mps: tasks are drawn in float64, which MPS does not",
        ),
        (["run", "omniglot", "--device", "cuda:x"], "argument --device: cuda:x: must be one of auto"),
        (["run", "omniglot", "data.ways"], "command line: data.ways: not an override"),
        (["show", "omniglot", "seed=x"], 'command line: seed = "x": must be a whole number'),
        (["show", "."], ".: is a folder; give a YAML file in it, or a name that `fmaml ls` lists"),
        (["show", "../experiments/omniglot"], "../experiments/omniglot: no such file"),
        (["ls", "modl"], "ls modl: no such section; did you mean model?"),
        (["ls", "qqq"], "ls qqq: no such section; one of experiments, data, model"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_slip_is_told_in_one_line_with_exit_code_2(told, ran, argv, said):
    code, out, err = told(*argv)
    assert (code, out, len(err)) == (2, "", 1)
    assert err[0].startswith(f"fmaml: {said}")
    assert not ran


def test_every_line_of_a_longer_message_says_who_speaks(told):
    code, _, err = told("show", "omniglot", "seed=x", "data.ways=1")
    assert code == 2
    assert [line[:21] for line in err] == ["fmaml: command line: "] * 2


def test_the_traceback_is_there_for_who_asks(told, monkeypatch):
    monkeypatch.setenv("FMAML_DEBUG", "1")
    with pytest.raises(Error, match="seed"):
        told("show", "omniglot", "seed=x")


def test_what_is_left_out_of_the_file_is_said_and_does_not_disturb_the_output(told):
    code, out, err = told("show", "omniglot", "model.name=mlp")
    assert code == 0
    assert out.startswith("name: omniglot\n")
    assert "fmaml: model.width of the file is left out: mlp does not take it" in err


def test_a_path_as_in_a_checkout_finds_the_experiment_that_came_along(told, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, (line,) = told("show", "experiments/omniglot.yaml")
    assert code == 0
    assert out == told("show", "omniglot")[1] == told("show", "omniglot.yaml")[1]
    assert line.startswith("fmaml: no experiments/omniglot.yaml in this folder; using ")
    (tmp_path / "omniglot").mkdir()  # a folder of data, say, does not hide the experiment
    assert told("show", "omniglot")[:2] == (0, out)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "omniglot.yaml").write_text(out.replace("seed: 0", "seed: 8"))
    assert "seed: 8" in told("show", "experiments/omniglot.yaml")[1]


def test_ls_lists_every_experiment_and_name_and_setting(told):
    _, out, _ = told("ls")
    for name in [*packaged.experiment_names(), "glyphs", "conv4", "maml", "adamw"]:
        assert f"\n  {name} " in out
    _, out, _ = told("ls", "optimizers")
    assert "optimizer.name: momentum" in out
    assert "decay     a number, 0 or more and below 1 (default 0.9)" in out
    assert "lr  a number, above 0 (required)" in out
    assert "meta_batch" in told("ls", "train")[1]
    algorithms, anil = told("ls", "algorithms")[1], packaged.header("algorithms/anil")
    assert f"measured: {anil['ours']}\n  costs: {anil['costs']}\n  by: fmaml run algorithms/anil, 5-way" in algorithms
    assert f"when to use it: {anil['when']}" in algorithms
    (row,) = [line for line in algorithms.splitlines() if line.startswith("  algorithms/anil ")]
    costs = anil["costs"].split()
    assert row.split()[1:6] == [anil["ours"].split()[0], "%", costs[0], costs[3], costs[8]]
    assert row.endswith(anil["when"])
    experiments = told("ls", "experiments")[1]
    assert experiments.index("  omniglot ") < experiments.index("  paper/")


def test_an_interrupt_ends_quietly_with_130(told, monkeypatch):
    def run(config, **options):
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "fmaml.training.run_experiment", SimpleNamespace(run=run))
    assert told("run", "omniglot") == (130, "", [])


def test_a_reader_that_leaves_early_is_no_fault():
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONPATH": str(packaged.FOLDER.parent.parent), "PYTHONUNBUFFERED": ""}
    ended = subprocess.run(
        [sys.executable, "-m", "fmaml", "ls"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.parametrize(
    ("given", "count"), [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_idle_threads_sleep_soon_unless_the_user_has_said_otherwise(given, count, told, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    told()
    assert os.environ.get("GOMP_SPINCOUNT") == count


@pytest.mark.parametrize("command", [["run", "sinusoid"], ["runs"], ["test", "sinusoid"], ["resume", "x"]])
def test_a_removed_working_directory_is_named(tmp_path, command):
    (gone := tmp_path / "gone").mkdir()
    here = f"import os, sys; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); from fmaml.cli.main import main"
    code = f"{here}; sys.exit(main({command!r}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == (
        "fmaml: the working directory: No such file or directory; it was removed, so `cd` to one that exists\n"
    )
