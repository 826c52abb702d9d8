"""`fmaml adapt` and `predict` on a user's folders: what they understood, and the accuracy."""

import json

import pytest
from PIL import Image

from fmaml.cli.main import main

COLOURS = {"red": (200, 20, 20), "blue": (20, 20, 200), "green": (20, 160, 20)}


@pytest.fixture
def pictures(tmp_path):
    """Three classes of three pictures to learn from, and two of each to name."""
    for part, count in (("support", 3), ("query", 2)):
        for name, colour in COLOURS.items():
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (40 + i, 32), tuple(min(255, c + 9 * i) for c in colour)).save(folder / f"{i}.png")
    return tmp_path


def test_adapt_says_what_it_found_and_how_good_it_is(pictures, capsys):
    (pictures / "support" / "red" / "a.HEIC").write_bytes(b"x")
    out = pictures / "mine.safetensors"
    assert main(["adapt", "cifar_fs_prototypes", "--support", str(pictures / "support"), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "3 classes, 9 pictures: 3 of each; 40x32 to 42x32 pixels, colour" in said.err
    assert "skipped 1 HEIC file, such as red/a.HEIC" in said.err
    assert "accuracy on these pictures, each left out in turn and predicted from the others:" in said.out
    assert "cifar_fs_prototypes                100.0%  [70.1%, 100.0%]  9 of 9" in said.out
    assert "by class: blue 3/3, green 3/3, red 3/3" in said.out
    assert out.exists()


def test_predict_tells_the_accuracy_on_folders_of_classes(pictures, capsys):
    (pictures / "query" / "violet").mkdir()
    Image.new("RGB", (40, 40), (120, 20, 200)).save(pictures / "query" / "violet" / "0.png")
    (pictures / "query" / "red" / "0.png").rename(pictures / "query" / "green" / "wrong.png")
    learnt = ["cifar_fs_prototypes", "--support", str(pictures / "support")]
    assert main(["predict", *learnt, "--json", str(pictures / "query")]) == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)) == 7
    assert "accuracy 83.3% [43.6%, 97.0%]: 5 of 6 pictures" in said.err
    assert "green taken for red: 1" in said.err
    assert "wrong.png: red" in said.err
    assert "1 picture of classes that were not learnt: violet" in said.err


def test_predict_on_a_plain_folder_says_nothing_of_accuracy(pictures, capsys):
    learnt = ["cifar_fs_prototypes", "--support", str(pictures / "support")]
    assert main(["predict", *learnt, "--csv", str(pictures / "query" / "red")]) == 0
    assert "accuracy" not in capsys.readouterr().err


def test_a_test_on_a_folder_takes_every_class_and_as_many_queries_as_there_are(pictures, capsys):
    (pictures / "support" / "once").mkdir()
    Image.new("RGB", (40, 40), (9, 9, 9)).save(pictures / "support" / "once" / "0.png")
    root = f"data.root={pictures / 'support'}"
    assert main(["test", "cifar_fs_prototypes", root, "data.ways=3", "data.shots=1", "eval.tasks=4"]) == 0
    said = capsys.readouterr()
    assert "3-way 1-shot, 2 queries a class, from 3 unseen classes (every class)" in " ".join(said.out.split())
    assert "classes of 1 picture or fewer left out: 1, such as once" in said.err
    assert "data.queries = 2, since the smallest class has 3 pictures" in said.err
    assert "for the files of cifar_fs give data.name=cifar_fs as well" in said.err
    assert main(["test", "cifar_fs_prototypes", root, "data.ways=4", "data.shots=1"]) == 2
    assert "has 3 of 4 classes with more pictures than data.shots = 1" in capsys.readouterr().err


def test_fmaml_alone_names_three_things_to_try(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("  fmaml ")]) == 3
    assert "--quick" in lines[2]


def test_training_from_a_shipped_model_says_what_was_gained(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(8):
        (tmp_path / "mine" / f"c{number}").mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (40, 40), (30 * number, 5 * i, 0)).save(tmp_path / "mine" / f"c{number}" / f"{i}.png")
    small = ["train.meta_steps=1", "train.validate_tasks=2", "eval.tasks=4", "--device", "cpu"]
    assert main(["run", "photos", "data.root=mine", *small, "--out", "out"]) == 0
    said = capsys.readouterr()
    assert "tasks: 2-way 3-shot, 3 queries a class; 4 ways in training" in said.err
    assert "8 classes, 48 pictures: 6 of each; 40x40 pixels, colour" in said.err
    gain = next(line for line in said.out.splitlines() if line.startswith("gain over cifar_fs_prototypes, as it was: "))
    assert "points transductive; " in gain
    columns = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))["results"]
    assert len(columns) == 4, "both protocols, of the model before and after"
    assert main(["run", "photos", "data.root=mine", "train.start=null", "--dry-run"]) == 2
    assert "train.start names no model to compare with; give train.baseline=false" in capsys.readouterr().err
