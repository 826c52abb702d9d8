"""`fmaml adapt` and `predict` on a user's folders: what they understood, and the accuracy."""

import contextlib
import dataclasses
import io
import json

import pytest
import torch
from PIL import Image

import fmaml
from fmaml.cli.main import main
from fmaml.data.sources.glyphs import glyphs
from fmaml.report.format_predictions import Row
from fmaml.report.own_accuracy import describe_accuracy
from fmaml.training.finish import describe_gain

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


def test_the_gain_is_that_of_the_trained_model_over_the_first(tmp_path):
    before, after = [[0.5], [0.6], [0.7]], [[0.6], [0.75], [0.75]]
    rows = [{"column": f"{name} inductive", "first": 0, "end": 3, "scores": scores} for name, scores in
            (("protonet", after), ("first, as it was", before))]  # fmt: skip
    (tmp_path / "scores.jsonl").write_text("\n".join(map(json.dumps, [{}, *rows])))
    gain = describe_gain(tmp_path, "protonet", "first, as it was")
    assert gain == "gain over first, as it was: +10.0 ± 12.4 points inductive"


def test_the_most_confident_mistakes_come_first():
    rows = [Row(f"{i}.png", "a", {"a": p, "b": 1 - p}) for i, p in enumerate((0.6, 0.9, 0.7))]
    lines = describe_accuracy(rows, ["b", "b", "a"], ["a", "b"])
    assert lines[0].startswith("accuracy 33.3% ")
    assert lines[1:] == ["  b taken for a: 2", "the most confident mistakes:", "  1.png: a 90.0%", "  0.png: a 60.0%"]


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
    small = ["train.meta_steps=0", "train.validate_tasks=2", "eval.tasks=4", "--device", "cpu"]
    assert main(["run", "photos", "data.root=mine", *small, "--out", "out"]) == 0
    said = capsys.readouterr()
    assert "tasks: 2-way 3-shot, 3 queries a class; 4 ways in training" in said.err
    assert "8 classes, 48 pictures: 6 of each; 40x40 pixels, colour" in said.err
    gain = next(line for line in said.out.splitlines() if line.startswith("gain over cifar_fs_prototypes, as it was: "))
    assert gain.endswith(": +0.0 ± 0.0 points transductive; +0.0 ± 0.0 points inductive"), "nothing was trained"
    assert "few test classes: the interval covers the draw of tasks, not other classes" in said.out
    columns = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))["results"]
    assert len(columns) == 4, "both protocols, of the model before and after"
    assert main(["run", "photos", "data.root=mine", "train.start=null", "--dry-run"]) == 2
    assert "train.start names no model to compare with; give train.baseline=false" in capsys.readouterr().err


@pytest.fixture(scope="module")
def omniglot_classes(tmp_path_factory):
    """Four classes of built-in characters with six drawings each to learn from, and two classes more."""
    source = glyphs(seed=0, device=torch.device("cpu"), ways=6, shots=7, queries=1)
    task = source.sample("test", 0, range(1)).support
    folder = tmp_path_factory.mktemp("characters")
    for i, (x, y) in enumerate(zip(task.x[0], task.y[0].tolist(), strict=True)):
        part = "query" if y > 3 or i % 7 == 6 else "support"
        (folder / part / f"c{y}").mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 - 255 * x[0]).byte().numpy()).save(folder / part / f"c{y}" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def adapted_file(omniglot_classes, tmp_path_factory):
    out = tmp_path_factory.mktemp("adapted") / "mine.safetensors"
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        support = str(omniglot_classes / "support")
        assert main(["adapt", "omniglot_prototypes", "--support", support, "--out", str(out)]) == 0
    return out, text.getvalue()


def test_adapt_measures_the_limit_on_these_pictures(adapted_file):
    out, said = adapted_file
    assert "none of these: the limit refuses 5% of these 24 pictures, a tenth left out in turn" in said
    assert "  a class left out: " in said
    assert "from the model, since these pictures or their mistakes are few" in said
    own, model = fmaml.load_adapted(out).calibration, fmaml.load("omniglot_prototypes").metadata["calibration"]
    assert own
    assert own.temperature == model["temperature"]
    assert own.distances != model["distances"]


def test_predict_names_other_classes_none_of_these(adapted_file, omniglot_classes, capsys):
    out, _ = adapted_file
    noise = omniglot_classes / "noise.png"
    Image.effect_noise((28, 28), 100).save(noise)
    query = str(omniglot_classes / "query")
    assert main(["predict", str(out), query, str(noise), "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found[-1]["image"] == str(noise)
    assert found[-1]["label"] == "none of these"
    assert found[-1]["probabilities"]["none of these"] == found[-1]["probability"] > 0.5
    others = [row["label"] for row in found if "/c4/" in row["image"] or "/c5/" in row["image"]]
    assert others.count("none of these") >= len(others) - 2
    assert f"of classes that were not learnt: c4, c5; {others.count('none of these')} named none of these" in said.err
    assert "fit no class; the limit refuses 0.05 of known pictures" in said.err


def test_reject_0_names_every_picture(adapted_file, omniglot_classes, capsys):
    out, _ = adapted_file
    query = str(omniglot_classes / "query")
    assert main(["predict", str(out), query, "--csv", "--reject", "0"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "image,label,probability,c0,c1,c2,c3"
    assert "none of these" not in said.out + said.err
    assert main(["predict", str(out), query, "--csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "image,label,probability,c0,c1,c2,c3,none of these"


def test_table_and_page_show_none_of_these(adapted_file, omniglot_classes, tmp_path, capsys):
    out, _ = adapted_file
    assert main(["predict", str(out), str(omniglot_classes / "query/c4"), "--html", str(tmp_path / "p.html")]) == 0
    assert "none of these" in capsys.readouterr().out
    assert "<h2>none of these</h2>" in (tmp_path / "p.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("word", ["0.5", "-0.1", "x", "nan", "1"])
def test_a_share_that_cannot_be_refused_is_an_error(word, capsys):
    assert main(["predict", "omniglot", "x.png", f"--reject={word}"]) == 2
    assert "must be a number from 0 to below 0.5" in capsys.readouterr().err


def test_reject_with_a_model_of_an_earlier_version_says_what_to_do(adapted_file, omniglot_classes, tmp_path, capsys):
    adapted = fmaml.load_adapted(adapted_file[0])
    metadata = {**adapted.metadata, "calibration": None}
    dataclasses.replace(adapted, metadata=metadata, means=None).save(tmp_path / "old.safetensors")
    query = str(omniglot_classes / "query")
    assert main(["predict", str(tmp_path / "old.safetensors"), query, "--csv"]) == 0
    assert "none of these" not in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "old.safetensors"), query, "--reject", "0.05"]) == 2
    assert "adapt by `fmaml adapt` with 20 pictures or more" in capsys.readouterr().err


def test_a_test_prints_calibration_and_auroc_and_stores_them(tmp_path, capsys):
    settings = ["data.name=glyphs", "eval.tasks=6", "eval.inductive=false"]
    assert main(["test", "omniglot_prototypes", *settings, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "probabilities: expected calibration error " in said
    assert "none of these: AUROC " in said
    found = json.loads((tmp_path / "out/results.json").read_text())["calibration"]
    assert found["tasks"] == 6
    assert found["temperature"] == fmaml.load("omniglot_prototypes").metadata["calibration"]["temperature"]
    assert 0.5 < found["auroc"][0] <= 1
    assert "distances" not in found
