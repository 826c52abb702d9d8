"""`fmaml predict`, `adapt` and `test` as a user runs them."""

import csv
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from children import PATIENCE, start
from pages import text_of
from PIL import Image

from fmaml.cli.main import main


def predict(capsys, *words) -> str:
    assert main(["predict", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_most_drawings_are_named_rightly(trained, characters, capsys):
    rows = json.loads(predict(capsys, trained, "--support", characters / "support", characters / "new", "--json"))
    right = [row["label"] == re.findall(r"(c\d)-\d+\.png", row["image"])[0] for row in rows]
    assert len(rows) == 25
    assert sum(right) >= 14  # 5 by chance
    for row in rows:
        assert abs(sum(row["probabilities"].values()) - 1) < 1e-4
        assert row["probability"] == max(row["probabilities"].values()) == row["probabilities"][row["label"]]


def test_every_output_says_the_same(trained, characters, capsys, monkeypatch):
    monkeypatch.chdir(characters)
    words = (trained, "--support", "support", "new")
    rows = json.loads(predict(capsys, *words, "--json"))
    table = list(csv.DictReader(io.StringIO(predict(capsys, *words, "--csv"))))
    assert [row["label"] for row in table] == [row["label"] for row in rows]
    assert [float(row["probability"]) for row in table] == [row["probability"] for row in rows]
    page = characters / "page.html"
    printed = predict(capsys, *words, "--html", page).splitlines()
    for row in rows:
        name = row["image"].removeprefix("new/")  # relative to the folder of all
        line = next(line for line in printed if name in line)
        assert row["label"] in line
        assert f"{100 * row['probability']:.1f}" in line
    assert page.read_text().count("<figure>") == 25
    said = text_of(page.read_text())
    assert all(row["image"].removeprefix("new/") in said and f"{100 * row['probability']:.1f}%" in said for row in rows)


def test_an_adapted_model_needs_no_support_set_and_says_the_same(trained, characters, capsys):
    with_support = predict(capsys, trained, "--support", characters / "support", characters / "new", "--csv")
    out = characters / "mine.safetensors"
    assert main(["adapt", str(trained), "--support", str(characters / "support"), "--out", str(out)]) == 0
    assert "tells c0, c1, c2, c3, c4 apart" in capsys.readouterr().out
    assert predict(capsys, out, characters / "new", "--csv") == with_support


def test_what_is_wrong_is_one_line(trained, characters, capsys):
    support, photo = str(characters / "support"), str(next((characters / "new").iterdir()))
    mine = str(characters / "mine.st")
    assert main(["adapt", str(trained), "--support", support, "--out", mine]) == 0
    shutil.copy(trained / "model.safetensors", characters / "cut.st")
    (characters / "cut.st").write_bytes((characters / "cut.st").read_bytes()[:5000])
    cases = {
        ("predict", str(trained), photo): "--support: missing",
        ("predict", "omniglott", "--support", support, photo): "no such file, and no model of that name",
        ("predict", str(trained), "--support", photo, photo): "is one image; name a folder",
        ("predict", str(trained), "--support", support, "nothing.png"): "nothing.png: no such file or folder",
        ("predict", str(trained), "--support", support, str(characters / "cut.st")): "not an image that can be read",
        ("predict", str(characters / "cut.st"), "--support", support, photo): "damaged or not a model",
        ("predict", mine, "--support", support, photo): "or adapt its model again to all pictures together, since",
        ("predict", str(trained), "--support", support, photo, "--json", "--csv"): "give one of them",
        ("predict", str(trained), "--support", support, photo, "--steps", "-1"): "--steps",
        ("adapt", str(trained), "--support", support, "--out", mine): "it is not overwritten",
        ("adapt", str(trained), "--out", mine + "2"): "--support: missing",
        ("test", str(trained), "model.width=3"): "model.width: fixed in a trained model",
        ("test", str(trained), "data.ways=1000"): "data.ways",
        ("test", str(trained), "data.name=sinusoid"): "sinusoid",
        ("test", mine): "adapted already",
    }
    capsys.readouterr()
    for words, message in cases.items():
        assert main(list(words)) == 2, words
        lines = capsys.readouterr().err.splitlines()
        assert message in lines[-1], (words, lines)
        assert not any("Traceback" in line for line in lines)


def test_the_model_is_tested_as_its_run_was(trained, capsys):
    """The same tasks give the same table."""
    assert main(["test", str(trained), "--out", str(trained / "again"), "--device", "cpu"]) == 0
    capsys.readouterr()
    first, again = (json.loads((folder / "results.json").read_text()) for folder in (trained, trained / "again"))
    assert again["results"] == first["results"]
    shutil.rmtree(trained / "again")


def test_other_ways_and_shots(trained, capsys, tmp_path):
    settings = ["data.ways=7", "data.shots=3", "data.queries=2", "eval.tasks=6", "--out", str(tmp_path / "a")]
    assert main(["test", str(trained), *settings, "--device", "cpu"]) == 0
    assert "7-way 3-shot, 2 queries a class" in " ".join(capsys.readouterr().out.split())


@pytest.mark.real_data("omniglot")
def test_other_data(trained, capsys):
    other = ["data.name=omniglot", "eval.tasks=6", "--device", "cpu"]
    assert main(["test", str(trained), *other]) == 0
    assert "(omniglot), 6 tasks" in " ".join(capsys.readouterr().out.split())


def test_prediction_starts_without_what_it_does_not_need():
    """matplotlib, the compiler and the data sources take seconds to import, and a prediction needs none of them."""
    code = "import sys, fmaml; fmaml.load, fmaml.Learner; import fmaml.report.format_predictions; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "torch._dynamo", "torch._inductor", "sympy"} & set(modules)


def test_25_photographs_are_named_within_three_seconds_imports_included(characters):
    """Processor seconds of the whole command, since tests share the machine; the best of three."""
    words = ["predict", "omniglot_prototypes", "--support", characters / "support", characters / "new"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "fmaml", *words], env=environment, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert any(seconds() < 3 for _ in range(3))


def test_a_test_that_was_interrupted_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["test", "omniglot_prototypes", "data.name=glyphs", "data.ways=2", "data.queries=1", "eval.tasks=80"]
    words += ["--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    with (tmp_path / "said").open("w") as said:
        child = start(lambda: main([*words, "--out", str(tmp_path / "again")]), said.fileno(), said.fileno())
    while len(rows := rows_of_scores(tmp_path)) < 4 and child.poll() is None:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGINT)
    assert child.wait(PATIENCE) == 130, (tmp_path / "said").read_text()
    assert "the same command continues" in (tmp_path / "said").read_text()
    kept = rows_of_scores(tmp_path)
    assert len(rows) <= len(kept) < 11
    calls = count_calls(monkeypatch, "scores_of")
    assert main([*words, "--out", str(tmp_path / "again")]) == 0
    assert len(calls) == 10 - (len(kept) - 1)  # the first row says what the scores depend on
    first, again = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "again"))
    assert again["results"] == first["results"]
    assert not rows_of_scores(tmp_path)


def rows_of_scores(folder: Path) -> list[str]:
    return [row for path in (folder / "cache").rglob("*.jsonl") for row in path.read_text().splitlines()]


def count_calls(monkeypatch, name: str) -> list[None]:
    from fmaml.meta_testing import scores as meta_test

    calls, function = [], getattr(meta_test, name)
    monkeypatch.setattr(meta_test, name, lambda *args, **kwargs: calls.append(None) or function(*args, **kwargs))
    return calls


def test_results_of_another_run_are_not_overwritten(trained, tmp_path, capsys):
    before = (trained / "results.json").read_bytes()
    assert main(["test", "omniglot_prototypes", "eval.tasks=2", "--out", str(trained)]) == 2
    assert "has results already, and they are not overwritten" in capsys.readouterr().err
    assert (trained / "results.json").read_bytes() == before
    (tmp_path / "file").touch()
    assert main(["test", "omniglot_prototypes", "eval.tasks=2", "--out", str(tmp_path / "file")]) == 2
    assert "is a file; name a folder" in capsys.readouterr().err


def test_without_a_cache_folder_a_test_is_made_all_the_same(monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    assert main(["test", "omniglot_prototypes", "data.name=glyphs", "eval.tasks=2", "--device", "cpu"]) == 0
    assert "an interrupted test will start again from the beginning" in capsys.readouterr().err


def test_a_model_trained_by_larger_minibatches_learns_from_fewer_examples(tmp_path, characters, capsys):
    out = str(tmp_path / "out")
    small = ["data.name=glyphs", "model.width=8", "train.meta_steps=2", "train.validate_tasks=2", "train.compile=false"]
    small += ["data.train_shots=2", "eval.tasks=2", "eval.steps=2", "--device", "cpu"]
    assert main(["run", "omniglot_reptile", *small, "--out", out]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "of 5 tasks (2 shots) with 10 inner steps" in said
    assert main(["test", out, "data.ways=3", "--device", "cpu"]) == 0, capsys.readouterr().err
    assert main(["predict", out, "--support", str(characters / "support"), str(characters / "new")]) == 0


def test_a_test_on_other_data_needs_no_training_classes(tmp_path, capsys):
    """The model was trained on batches of 64 classes; six classes of photographs are enough to test it 2-way."""
    for name in "abcdef":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            noise = np.random.default_rng(i).integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "photos" / name / f"{i}.png")
    settings = ["data.name=folder", f"data.root={tmp_path / 'photos'}", "data.ways=2", "data.shots=1", "data.queries=2"]
    settings += ["data.fractions=[0.34,0.33,0.33]", "eval.tasks=2", "--device", "cpu"]
    assert main(["test", "photographs", *settings]) == 0, capsys.readouterr().err


def test_images_of_another_size_become_those_that_the_model_takes(tmp_path, capsys):
    """The model of photographs takes 56x56 in colour, glyphs are 28x28 in grey, ink 1 on 0."""
    words = ["test", "photographs", "data.name=glyphs", "data.shots=1", "eval.tasks=8", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert "images of 28x28x1 as 56x56x3" in results["protocol"]
    assert next(iter(results["results"].values()))[0]["mean"] > 0.6  # chance is 0.2


def test_predictions_are_whole_in_ten_columns(trained, characters, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10")
    monkeypatch.chdir(characters)
    words = (trained, "--support", "support", "new")
    shown = predict(capsys, *words)
    for row in json.loads(predict(capsys, *words, "--json")):
        assert f"{row['image'].removeprefix('new/')}: {row['label']} {row['probability']:.1%}, else " in shown
