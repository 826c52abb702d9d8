"""Names in data hold escape sequences: none reaches a terminal, and each message stays one line."""

import io
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fmaml import errors
from fmaml.cli.main import main
from fmaml.errors import Error, note
from fmaml.files import standard_output
from fmaml.files.console import CleanConsole
from fmaml.models.find_model import find_model
from fmaml.models.model_file import read_model, write_model

ESCAPE = "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b31m\N{RIGHT-TO-LEFT OVERRIDE}"
NAMED = f"n{ESCAPE}"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")
SETTINGS = ["train.meta_steps=2", "train.validate_every=1", "train.validate_tasks=2", "eval.tasks=2"]


@pytest.fixture
def inputs(tmp_path, monkeypatch) -> Path:
    """A folder of files with such names, columns, settings and tensors; it is the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text(f"a,{NAMED}x,{NAMED}y\n" + "1,2,3\n4,5,6\n" * 9)
    (tmp_path / "labels.csv").write_text(f"file,label\n{NAMED}.png,x\n")
    (tmp_path / "key.yaml").write_text('name: x\ndata:\n  "no\\x1b[31m": 1\n')
    for name in ("a", NAMED):
        (tmp_path / "classes" / name / f"{NAMED}sub").mkdir(parents=True)
        for i in range(3):
            Image.new("L", (30, 30), i * 40).save(tmp_path / "classes" / name / f"{NAMED}{i}.png")
    (tmp_path / "bad" / "x").mkdir(parents=True)
    (tmp_path / "bad" / "x" / f"{NAMED}.png").write_text("no image")
    tensors, facts = read_model(find_model("sinusoid"))
    facts = {key: value for key, value in (facts or {}).items() if key not in ("digest", "format")}
    write_model(tmp_path / "tensor.safetensors", {**tensors, NAMED: torch.zeros(1)}, facts)
    for change in ({"activation": ESCAPE}, {NAMED: 1}):
        forged = json.loads(json.dumps(facts))
        forged["config"]["model"] |= change
        write_model(tmp_path / f"{next(iter(change))}.safetensors", tensors, forged)
    return tmp_path


COMMANDS = {
    "a column": ["run", "table", "data.file=table.csv", "data.task=a", "data.target=no", "--dry-run"],
    "a file in a table": ["run", "photos", "data.root=labels.csv", "--dry-run"],
    "a key": ["run", "key.yaml", "--dry-run"],
    "a tensor": ["test", "tensor.safetensors"],
    "a setting of a model": ["test", "activation.safetensors"],
    "a key of a model": ["test", f"{NAMED}.safetensors"],
    "an empty folder": ["run", "photos", "data.root=classes", "data.ways=2", "--dry-run"],
    "a picture": ["predict", "omniglot_prototypes", "--support", "classes", f"classes/{NAMED}/{NAMED}1.png"],
    "a picture, JSON": [
        "predict",
        "omniglot_prototypes",
        "--json",
        "--support",
        "classes",
        f"classes/a/{NAMED}1.png",
    ],
    "a picture in CSV": ["predict", "omniglot_prototypes", "--csv", "--support", "classes", f"classes/a/{NAMED}1.png"],
    "no picture": ["adapt", "omniglot_prototypes", "--support", "bad", "--out", "x.safetensors"],
    "a class": ["adapt", "omniglot_prototypes", "--support", "classes", "--out", f"{NAMED}.safetensors"],
    "an experiment": ["show", NAMED],
    "an override": ["run", "sinusoid", f"{NAMED}=3"],
    "an option": ["run", f"--{NAMED}"],
    "a command": [NAMED],
    "a run": ["run", "sinusoid", *SETTINGS, "--out", f"runs/{NAMED}"],
    "a sweep": ["run", "sinusoid", "seed=1,2", *SETTINGS, "--dry-run", "--out", NAMED],
    "runs": ["runs", "."],
    "no run": ["compare", NAMED, NAMED],
}


@pytest.mark.parametrize("what", COMMANDS)
def test_no_command_prints_control_characters(inputs, capfd, what):
    main(COMMANDS[what])
    said = "".join(capfd.readouterr())
    assert said
    assert not CONTROL.search(said), repr(said)


def test_runs_and_their_comparison_print_no_control_characters(inputs, capfd):
    for name in (f"runs/{NAMED}1", f"runs/{NAMED}2"):
        assert main(["run", "sinusoid", *SETTINGS, "--out", name]) == 0
    assert main(["runs"]) == 0
    assert main(["compare", f"runs/{NAMED}1", f"runs/{NAMED}2", "--html", f"{NAMED}.html"]) == 0
    said = "".join(capfd.readouterr())
    assert not CONTROL.search(said), repr(said)
    assert said.count("]0;owned") > 9


def test_a_console_keeps_its_own_colours_and_no_other():
    shown = io.StringIO()
    console = CleanConsole(file=shown, force_terminal=True, color_system="standard", width=80)
    table = Table("[red]x[/red]", title=NAMED, title_style="green", header_style="")
    table.add_row(f"{NAMED} :smile: [/]", style="blue")
    console.print(table)
    console.print(f"[bold]{NAMED}")
    found = shown.getvalue()
    assert not CONTROL.search(re.sub(r"\x1b\[(0|1|32|34)m", "", found))
    assert "\x1b[32m" in found
    assert "\x1b[34m" in found
    assert "[red]x[/red]" in found
    assert ":smile: [/]" in found
    assert "[bold]n" in found


def test_a_console_finds_the_terminal_behind_the_clean_stream(monkeypatch):
    """Its colours and cursor pass, because the stream would replace them."""
    monkeypatch.setattr(sys, "stdout", shown := io.StringIO())
    with standard_output.clean_streams():
        CleanConsole(force_terminal=True, color_system="standard").print(NAMED, style="green")
        print(NAMED, "\ttab  and no-break space")
    coloured, plain, end = shown.getvalue().split("\n")
    assert not CONTROL.search(coloured.removeprefix("\x1b[32m").removesuffix("\x1b[0m")), repr(coloured)
    assert plain.endswith("\ttab  and no-break space")
    assert not CONTROL.search(plain)
    assert (end, sys.stdout) == ("", shown)


def test_a_progress_bar_moves_the_cursor_of_the_terminal(monkeypatch):
    """It replaces standard error for its time, by a stream of its own above the clean one."""
    monkeypatch.setattr(sys, "stderr", shown := io.StringIO())
    with standard_output.clean_streams():
        for _ in track(range(2), NAMED, console=CleanConsole(stderr=True, force_terminal=True)):
            note(NAMED)
    found = shown.getvalue()
    assert "\N{REPLACEMENT CHARACTER}[2K" not in found
    assert not CONTROL.search(re.sub(r"\x1b\[(\?25[lh]|2K|[0-9;]*m)|\r", "", found)), repr(found)


def test_an_error_has_the_lines_that_it_was_given_and_no_more(capsys):
    error = Error(f"one{ESCAPE}\nforged: line\x85another", "two")
    assert str(error).count("\n") == 1
    assert str(error).endswith("forged: line another\ntwo")
    assert not CONTROL.search(str(error).replace("\n", ""))
    assert str(errors.RunFailed(*error.args)) == str(error)
    note("one\nline\r")
    assert capsys.readouterr().err == "fmaml: one line\n"


def test_every_console_is_a_clean_one():
    plain = re.compile(r"(?<!Clean)\bConsole\((?!quiet=True)")
    callers = {path.name for path in Path(errors.__file__).parent.rglob("*.py") if plain.search(path.read_text())}
    assert callers == set()
    assert issubclass(CleanConsole, Console)
