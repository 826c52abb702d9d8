"""The README's script runs as it stands, and learns; so do the examples and commands of the pages in `docs/`."""

import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import children
import pytest
import torch
from PIL import Image

import fmaml
from fmaml.cli.main import main
from fmaml.config import packaged
from fmaml.config.registry import TABLE

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text(encoding="utf-8")


def page(name: str) -> str:
    return (TOP / f"docs/{name}.md").read_text(encoding="utf-8")


def test_the_script_which_the_home_page_shows_too(tmp_path):
    """One script, and the home page shows what it prints."""
    (script,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert f"```python\n{script}```" in page("index")
    assert len(script.splitlines()) <= 32
    assert max(map(len, script.splitlines())) <= 88
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    ran = children.run([sys.executable, tmp_path / "script.py"], cwd=tmp_path, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    (shown,) = re.findall(r"```text\n(.*?)```", page("index"), re.DOTALL)
    accuracy, expected = (
        [float(value) for value in re.findall(r"inner steps: ([\d.]+)%", text)] for text in (ran.stdout, shown)
    )
    assert len(accuracy) == 4
    assert accuracy == pytest.approx(expected, abs=3)
    assert accuracy[0] < 30
    assert accuracy[-1] > 40


def first_commands(text: str) -> list[str]:
    """The commands that create an environment, each on one line."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    return [line for line in joined.splitlines() if line.startswith("python3 -m venv")]


def test_ci_runs_the_commands_of_the_readme_as_they_stand():
    """Without constraints and without data, in a fresh clone, as a newcomer does."""
    commands = first_commands(README)
    assert [command.split(" && ")[-1].split()[0] for command in commands] == ["fmaml", "pytest"]
    script = [line.strip() for line in (TOP / ".ci/run").read_text(encoding="utf-8").splitlines()]
    first, last = script.index("newcomer() {"), script.index("}")
    newcomer = script[first:last]
    assert first_commands("\n".join(newcomer)) == commands
    assert "unset FMAML_DATA" in newcomer
    assert not any("constraints" in line for line in newcomer)
    assert commands == first_commands(page("start"))


SMALL = ["train.meta_steps=3", "train.meta_batch=2", "train.validate_tasks=2", "eval.tasks=2"]


def photographs(folder: Path) -> None:
    """MY_PHOTOS with 24 nested classes of ten, and the same in labels.csv, split."""
    rows = ["file,label,split"]
    for number in range(24):
        name = f"{'ABC'[number % 3]}/{number}"
        (folder / "MY_PHOTOS" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (20, 16), (10 * number, 20 * i, 0)).save(folder / "MY_PHOTOS" / name / f"{i}.jpg")
            rows.append(f"MY_PHOTOS/{name}/{i}.jpg,{name},{('train', 'train', 'test', 'val')[number // 6]}")
    (folder / "labels.csv").write_text("\n".join(rows), encoding="utf-8")


def test_the_commands_for_ones_own_photographs_run(tmp_path, monkeypatch, capfd):
    """Each as it stands, but for a smaller network and less of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photographs(tmp_path)
    part = page("photos").partition("\n## Train further on your classes")[2]
    commands = [line.partition("#")[0].split() for line in part.split("```")[1].splitlines() if line]
    assert [command[1] for command in commands] == ["run", "run", "run", "cache"]
    small = [*SMALL, "data.size=16", "model.width=4", "train.start=null", "train.baseline=false", "--device", "cpu"]
    for number, (_, *words) in enumerate(commands):
        out = ["--out", f"out{number}"] if words[0] == "run" else []
        assert main([*words, *(small + out if out else [])]) == 0
    said = capfd.readouterr().out
    assert "nothing was trained" in said
    assert f"{tmp_path}/MY_PHOTOS, 16 px, colour, crop" in said  # of `fmaml cache`
    assert (tmp_path / "out0/results.json").exists()
    assert not (tmp_path / "out1").exists()
    about = json.loads((tmp_path / "out2/results.json").read_text(encoding="utf-8"))
    assert about["classes"] == {"train": 12, "val": 6, "test": 6}


def test_the_commands_for_a_few_classes_of_photographs_run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path)
    for number in (3, 4, 5):
        shutil.copytree(tmp_path / f"MY_PHOTOS/{'ABC'[number % 3]}/{number}", tmp_path / f"MY_CLASSES/{number}")
    shutil.copytree(tmp_path / "MY_CLASSES/3", tmp_path / "NEW_PHOTOS")
    _, _, *blocks = page("photos").partition("\n## Train further on your classes")[0].split("```")
    shutil.copytree(tmp_path / "MY_CLASSES/4", tmp_path / "MORE/new")
    for line in [*blocks[1].splitlines()[1:], *blocks[3].splitlines()[1:]]:
        assert main(line.split()[1:]) == 0
    assert (tmp_path / "named.html").exists()
    assert fmaml.load_adapted("growing.safetensors").classes == ["3", "4", "5", "new"]
    exec(blocks[5].removeprefix("py\n"), {})
    assert 0 <= float(capfd.readouterr().out.split()[-1]) <= 1


def test_the_commands_for_tables_and_signals_run(public_tables, tmp_path, monkeypatch):
    """Each as it stands, but for a smaller network and less of it, on the public tables themselves."""
    monkeypatch.chdir(public_tables)
    part = page("tables").replace("\\\n", " ")
    install, *commands = [line.split() for line in part.split("```")[1].splitlines() if line]
    assert install[-2:] == ["python", "benchmarks/public_tables.py"]
    smaller = {"table": "model.hidden=[8]", "signals": "model.width=4"}
    for _, *words in commands:
        out = tmp_path / words[1]
        less = [*SMALL, smaller.pop(words[1]), "eval.steps=1", "train.baseline=false", "--device", "cpu"]
        assert main([*words, *less, "--out", str(out)]) == 0
        assert (out / "results.json").exists()
    assert not smaller


def test_the_table_of_algorithms_names_all_of_the_public_api():
    public = set(TABLE["algorithm"]) & set(fmaml.__all__)
    assert set(re.findall(r"^\| `(\w+)`", page("algorithms"), re.MULTILINE)) >= public
    assert f"All {len(public)} algorithms" in README


def test_the_tables_of_algorithms_say_what_the_headers_of_their_experiments_say():
    text = page("algorithms").replace("`maml`, `first_order: true`", "`fomaml`")
    text = text.replace("`maml`, `steps: 5`", "`maml_5_steps`")
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", text, re.MULTILINE)
    cells = [(name, [cell.strip() for cell in row.split("|")]) for name, row in rows]
    measured = {name: row for name, row in cells if len(row) == 10}
    when = {name: row[-1] for name, row in cells if len(row) == 3}
    for name in ("streamed", "pretrain"):  # they learn from streams, and from batches of all classes
        when.pop(name)
    assert set(measured) == set(when) == {p.stem for p in (packaged.FOLDER / "algorithms").glob("*.yaml")}
    for name, (*scores, steps, time, _, memory) in measured.items():
        found, last = packaged.header(f"algorithms/{name}"), [score for score in scores if score][-1]
        assert found["ours"].startswith(last.replace("±", "+-") + " % transductive")
        assert found["costs"].startswith(f"{steps} inner step")
        assert f", {time} times the time and {memory} times the memory of " in found["costs"]
        assert found["when"] == when[name]


def test_commands_exist():
    from fmaml.cli.main import COMMANDS

    assert {word for word in re.findall(r"^fmaml (\w+)", page("commands"), re.MULTILINE)} == set(COMMANDS)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's
def test_the_example_of_networks_of_others_runs():
    part = page("networks").partition("## Networks of others\n")[2].partition("\n#")[0]
    (example,) = re.findall(r"```py\n(.*?)```", part, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["metrics"]["query_loss"] < math.log(256) + 1
    moved = {key: value for key, value in names["adapted"].named_parameters() if key in names["phi"]}
    assert all(torch.equal(value, names["phi"][key]) for key, value in moved.items())
    assert all("lora" in key for key in names["phi"])
    assert len(moved) == len(names["phi"])


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's
def test_the_example_of_streams_with_adapters_runs():
    """Vmapped and recomputed, its meta-gradient is that of a loop over streams that keeps everything."""
    part = page("streams").partition("## A model of `transformers` with LoRA\n")[2].partition("\n#")[0]
    (example,) = re.findall(r"```py\n(.*?)```", part, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    theta, tasks = names["state"].theta, names["tasks"]
    assert all("lora" in key for key in theta)
    kept = fmaml.streamed(names["loss_fn"], inner_lr=0.2, chunks=8, remat=False)
    expected, _ = fmaml.meta_grad(kept, theta, tasks, batching="loop")
    found, metrics = fmaml.meta_grad(names["algorithm"], theta, tasks, batching="vmap")
    assert metrics["query_loss"] < math.log(256) + 1
    for key, value in expected.items():
        assert torch.allclose(found[key], value, rtol=1e-4, atol=1e-4 * float(value.abs().max())), key


def test_the_example_of_dropout_and_running_statistics_runs():
    part = page("networks").partition("## Dropout and running statistics\n")[2].partition("\n#")[0]
    (example,) = re.findall(r"```py\n(.*?)```", part, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert set(names["grads"]) == set(names["theta"])
    assert torch.equal(names["adapted"][1].running_mean, names["statistics"]["1.running_mean"])
