"""`fmaml predict`, `adapt` and `test` as a user runs them."""

import csv
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys

from fmaml.cli import main


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
        line = next(line for line in printed if row["image"] in line)
        assert row["label"] in line
        assert f"{100 * row['probability']:.1f}" in line
    assert page.read_text().count("<figure>") == 25
    assert "http" not in page.read_text().replace("http-equiv", "")


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
        ("predict", str(trained), "--support", photo, photo): "is a file; give a folder",
        ("predict", str(trained), "--support", support, "nothing.png"): "nothing.png: no such file or folder",
        ("predict", str(trained), "--support", support, str(characters / "cut.st")): "not an image that can be read",
        ("predict", str(characters / "cut.st"), "--support", support, photo): "damaged or not a model",
        ("predict", mine, "--support", support, photo): "has learnt its classes already",
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


def test_other_ways_shots_steps_and_data(trained, capsys, tmp_path):
    settings = ["data.ways=7", "data.shots=3", "data.queries=2", "eval.tasks=6", "--out", str(tmp_path / "a")]
    assert main(["test", str(trained), *settings, "--device", "cpu"]) == 0
    assert "7-way 3-shot, 2 queries a class" in " ".join(capsys.readouterr().out.split())
    other = ["data.name=omniglot", "eval.tasks=6", "--device", "cpu"]
    assert main(["test", str(trained), *other]) == 0
    assert "(omniglot), 6 tasks" in " ".join(capsys.readouterr().out.split())


def test_prediction_starts_without_what_it_does_not_need():
    """matplotlib, the compiler and the data sources take seconds to import, and a prediction needs none of them."""
    code = "import sys, fmaml; fmaml.load, fmaml.Learner; from fmaml.deploy import present; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "torch._dynamo", "torch._inductor", "sympy"} & set(modules)


def test_25_photographs_are_named_within_three_seconds_imports_included(characters):
    """Processor seconds of the whole command, since tests share the machine; the best of three."""
    words = ["predict", "omniglot_prototypes", "--support", characters / "support", characters / "new"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    seconds: list[float] = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "fmaml", *words], env=environment, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 3
