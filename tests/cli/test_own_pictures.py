"""`fmaml adapt` and `predict` on a user's folders: the lines about the folders, and the accuracy."""

import contextlib
import dataclasses
import io
import json

import pytest
import torch
from learners import untrained
from PIL import Image

import fmaml
from fmaml.calibration import Calibration
from fmaml.cli.main import main
from fmaml.cli.model_commands import list_photos
from fmaml.data.sources.glyphs import glyphs
from fmaml.models.own_calibration import OwnCalibration
from fmaml.report.format_predictions import Row
from fmaml.report.own_accuracy import describe_accuracy, describe_own_calibration
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
    assert main(["adapt", "photographs", "--support", str(pictures / "support"), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "3 classes, 9 pictures: 3 of each; 40x32 to 42x32 pixels, colour" in said.err
    assert "skipped 1 HEIC file, such as red/a.HEIC" in said.err
    assert (
        "accuracy on these pictures, each left out in turn and predicted from the others (95 % intervals):" in said.out
    )
    assert "photographs of another place or day may be named worse; `fmaml predict` measures folders" in said.out
    assert "photographs                        100.0%  [70.1%, 100.0%]  9 of 9" in said.out
    assert "by class: blue 3/3, green 3/3, red 3/3" in said.out
    assert out.exists()


def test_predict_tells_the_accuracy_on_folders_of_classes(pictures, capsys):
    (pictures / "query" / "speckled").mkdir()
    speckles = torch.rand(40, 40, 3, generator=torch.Generator().manual_seed(0)).mul(255).byte().numpy()
    Image.fromarray(speckles).save(pictures / "query" / "speckled" / "0.png")
    (pictures / "query" / "red" / "0.png").rename(pictures / "query" / "green" / "wrong.png")
    learnt = ["photographs", "--support", str(pictures / "support")]
    assert main(["predict", *learnt, "--json", str(pictures / "query")]) == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)) == 7
    assert "accuracy 83.3% [43.6%, 97.0%]: 5 of 6 pictures" in said.err
    assert "green taken for red: 1" in said.err
    assert "wrong.png: red" in said.err
    assert (
        "1 picture of classes that were not learnt: speckled; 1 named none of these; `fmaml adapt` adds classes"
        in said.err
    )


def test_predict_on_a_plain_folder_says_nothing_of_accuracy(pictures, capsys):
    learnt = ["photographs", "--support", str(pictures / "support")]
    assert main(["predict", *learnt, "--csv", str(pictures / "query" / "red")]) == 0
    assert "accuracy" not in capsys.readouterr().err


def test_a_test_on_a_folder_takes_every_class_and_as_many_queries_as_there_are(pictures, capsys):
    (pictures / "support" / "once").mkdir()
    Image.new("RGB", (40, 40), (9, 9, 9)).save(pictures / "support" / "once" / "0.png")
    root = f"data.root={pictures / 'support'}"
    assert main(["test", "photographs", root, "data.ways=3", "data.shots=1", "eval.tasks=4"]) == 0
    said = capsys.readouterr()
    assert "3-way 1-shot, 2 queries a class, from 3 unseen classes (every class)" in " ".join(said.out.split())
    assert "classes of 1 picture or fewer left out: 1, such as once" in said.err
    assert "data.queries = 2, since the smallest class has 3 pictures" in said.err
    assert "for the files of cifar_fs give data.name=cifar_fs as well" in said.err
    assert "data.download" not in said.err, "it is no setting of the user's"
    assert "± is a 95 % interval over tasks" in " ".join(said.out.split())
    assert main(["test", "photographs", root, "data.ways=4", "data.shots=1"]) == 2
    assert "has 3 of 4 classes with more pictures than data.shots = 1" in capsys.readouterr().err


def test_a_test_on_a_folder_follows_its_counts_and_names_confusions_and_worst_pictures(pictures, capsys):
    """Three classes of three, one picture in a wrong folder: each is named once by a model that learnt the others."""
    Image.new("RGB", (40, 40), COLOURS["blue"]).save(pictures / "support" / "red" / "blue.png")
    root = f"data.root={pictures / 'support'}"
    assert main(["test", "photographs", root, "eval.inductive=false"]) == 0
    said = capsys.readouterr()
    assert "tasks: 3-way 1-shot, 2 queries a class\n" in said.err
    out = " ".join(said.out.split())
    assert "from 3 unseen classes (every class) (folder), 100 tasks" in out
    assert "all 3 classes at once, each left out in turn and named by a model that learnt the others:" in out
    assert "accuracy 90.0% [59.6%, 98.2%]: 9 of 10 pictures" in out
    assert "red taken for blue: 1" in out
    assert "the most confident mistakes: red/blue.png: blue" in out


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


def test_classes_of_one_name_in_two_folders_are_told_apart():
    rows = [Row(f"{i}.png", label, {"x/a": 0.5, "y/a": 0.5}) for i, label in enumerate(("x/a", "y/a"))]
    assert describe_accuracy(rows, ["x/a", "y/a"], ["x/a", "y/a"])[0].startswith("accuracy 100.0% ")
    rows = [Row("0.png", "deep/a", {"deep/a": 0.9, "deep/b": 0.1})]
    assert describe_accuracy(rows, ["a"], ["deep/a", "deep/b"])[0].startswith("accuracy 100.0% ")


def test_predict_counts_pictures_that_it_cannot_read(tmp_path, capsys):
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 20)).save(tmp_path / name / "0.png")
    (tmp_path / "a" / "1.heic").write_bytes(b"\0")
    assert list(list_photos([str(tmp_path)]).values()) == ["a", "b"]
    assert "1 HEIC" in capsys.readouterr().err


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
    assert "tasks: 2-way 3-shot, 3 queries a class\n" in said.err
    assert "8 classes, 48 pictures: 6 of each; 40x40 pixels, colour" in said.err
    gain = next(line for line in said.out.splitlines() if line.startswith("gain over photographs, as it was: "))
    assert gain.endswith(": +0.0 ± 0.0 points transductive"), "nothing was trained"
    assert "few test classes: the interval covers the draw of tasks, not other classes" in said.out
    columns = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))["results"]
    assert len(columns) == 2, "of the model before and after"
    assert main(["test", "out", "eval.tasks=2", "--device", "cpu"]) == 0, "on the run's own folder"
    assert "(folder), 2 tasks" in " ".join(capsys.readouterr().out.split())
    assert main(["run", "photos", "data.root=mine", "train.start=null", "--dry-run"]) == 2
    assert "train.start names no model to compare with; give train.baseline=false" in capsys.readouterr().err


def test_mistakes_beyond_the_first_confusions_are_counted():
    """Seven pairs of classes, and the first pair twice: eight mistakes. The five lines tell six."""
    names = list("abcdefgh")
    rows = [Row(str(i), name, {name: 0.9}) for i, name in enumerate(["a", *"abcdefg"])]
    lines = describe_accuracy(rows, ["b", *"bcdefgh"], names)
    assert lines[1] == "  b taken for a: 2"
    assert lines[6] == "  and 2 other mistakes"
    assert "other mistake" not in " ".join(describe_accuracy(rows[:6], ["b", *"bcdef"], names))


@pytest.mark.parametrize(("classes", "turns"), [(10, "each class"), (15, "8 of the 15 classes")])
def test_the_classes_left_out_in_turn_are_counted(classes, turns):
    """Up to ten, evenly spaced: of 15 every second one."""
    own = OwnCalibration(Calibration(1.0, [0.0, 1.0], 40), "", False, torch.zeros(8), 0.5)
    lines = describe_own_calibration(own, None, [str(i) for i in range(classes)])
    assert f"that was not learnt, {turns} in turn: 0 of 8 pictures refused" in lines[1]


def test_predict_says_which_pictures_were_learnt(pictures, capsys):
    """Of a file, of --support, and of pictures that were added later."""
    support, mine, query = str(pictures / "support"), str(pictures / "mine.safetensors"), str(pictures / "query")
    learnt = "of these {} pictures were learnt, so the accuracy on new pictures may be lower"
    model = ["photographs", "--support", support]
    assert main(["adapt", *model, "--out", mine, "--no-check", "--keep-support"]) == 0
    for command in ([mine, support], [*model, support]):
        assert main(["predict", *command]) == 0
        assert "9 " + learnt.format(9) in capsys.readouterr().err
    Image.new("RGB", (50, 50), (9, 9, 9)).save(pictures / "query" / "red" / "new.png")
    assert main(["predict", mine, str(pictures / "query")]) == 0
    before = capsys.readouterr().err
    assert "6 " + learnt.format(7) in before
    assert main(["adapt", mine, "--support", query, "--no-check"]) == 0
    assert main(["predict", mine, query]) == 0
    assert "7 " + learnt.format(7) in capsys.readouterr().err


def test_adapting_an_adapted_model_adds_classes_and_pictures(pictures, capsys):
    """The same probabilities as from all pictures at once, in the file itself, or in another."""
    support, part, mine = pictures / "support", pictures / "part", str(pictures / "mine.safetensors")
    for name in ("red/0.png", "red/1.png", "blue/0.png", "blue/1.png"):
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        (part / name).write_bytes((support / name).read_bytes())
    (pictures / "more" / "red").mkdir(parents=True)
    (pictures / "more" / "red" / "2.png").write_bytes((support / "red" / "2.png").read_bytes())
    (support / "green").rename(pictures / "more" / "green")
    model = ["adapt", "photographs", "--support"]
    assert main([*model, str(part), "--out", mine, "--keep-support", "--no-check"]) == 0
    capsys.readouterr()
    assert main(["adapt", mine, "--support", str(pictures / "more")]) == 0
    said = capsys.readouterr()
    assert "2 classes, 4 pictures: 1 (red) to 3 (green) of each" in said.err
    assert said.out.splitlines()[:6] == [
        "4 pictures of 2 classes before, 8 of 3 now:",
        "  class  before   now",
        "  green     new     3",
        "  red         2     3",
        "  2 pictures of 1 other class as before",
        f"{mine} tells blue, green, red apart; `fmaml predict {mine} PHOTO` names photographs",
    ]
    assert "photographs                        100.0%  [67.6%, 100.0%]  8 of 8" in said.out
    assert "nearest example, by pixels" in said.out
    (pictures / "more" / "green").rename(support / "green")
    (support / "blue" / "2.png").unlink()
    whole = str(pictures / "whole.safetensors")
    assert main([*model, str(support), "--out", whole, "--no-check"]) == 0
    rows = []
    for file in (mine, whole):
        capsys.readouterr()
        assert main(["predict", file, str(pictures / "query"), "--json"]) == 0
        rows.append([row["probabilities"] for row in json.loads(capsys.readouterr().out)])
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert main(["adapt", mine, "--support", str(support), "--out", whole]) == 2
    assert "it is not overwritten" in capsys.readouterr().err


def test_a_file_without_its_pictures_names_the_cure(pictures, capsys):
    support, mine = str(pictures / "support"), pictures / "mine.safetensors"
    assert main(["adapt", "omniglot_prototypes", "--support", support]) == 2
    assert "--out: missing; name the file to write, such as mine.safetensors" in capsys.readouterr().err
    assert main(["adapt", "omniglot_prototypes", "--support", support, "--out", str(mine), "--no-check"]) == 0
    content = mine.read_bytes()
    assert main(["adapt", str(mine), "--support", support]) == 2
    said = capsys.readouterr().err
    assert "mine.safetensors: it keeps none of its examples, and protonet with batch norm needs them" in said
    assert "with --keep-support" in said
    assert mine.read_bytes() == content
    assert main(["predict", str(mine), "--support", support, str(pictures / "query")]) == 2
    said = capsys.readouterr().err
    assert "leave out --support, or adapt its model again to all pictures together, since the file keeps none" in said
    assert "fmaml adapt" not in said, "it would refuse, as above"
    kept = ["adapt", "omniglot_prototypes", "--support", support, "--out", str(pictures / "kept.st"), "--keep-support"]
    assert main(kept) == 0
    assert main(["predict", str(pictures / "kept.st"), "--support", support, str(pictures / "query")]) == 2
    assert f"or add these with `fmaml adapt {pictures / 'kept.st'} --support {support}`" in capsys.readouterr().err


def test_the_page_shows_the_accuracy_and_the_file_of_the_model(pictures, capsys):
    (pictures / "query" / "red" / "0.png").rename(pictures / "query" / "green" / "wrong.png")
    mine, page = str(pictures / "mine.safetensors"), pictures / "page.html"
    support = str(pictures / "support")
    assert main(["adapt", "photographs", "--support", support, "--out", mine, "--no-check"]) == 0
    assert main(["predict", mine, str(pictures / "query"), "--html", str(page)]) == 0
    html = page.read_text(encoding="utf-8")
    assert "<h1>mine.safetensors, adapted from photographs: 6 images, 3 classes</h1>" in html
    assert "accuracy 83.3% [43.6%, 97.0%]: 5 of 6 pictures" in html
    assert "green taken for red: 1" in html
    assert 'aria-label="green/wrong.png"' in html
    assert ">blue/0.png<" in html
    assert str(pictures) not in html, "paths are relative to the folder of all"
    assert "  green/wrong.png: red" in capsys.readouterr().err
    assert main(["predict", mine, str(pictures / "query" / "red"), "--html", str(page)]) == 0
    assert "accuracy" not in page.read_text(encoding="utf-8")


def test_of_many_pictures_the_table_shows_the_first_and_the_counts(pictures, capsys):
    for i in range(45):
        Image.new("RGB", (40, 40), (200, 20, 20)).save(pictures / f"many{i:02}.png")
    support = ["--support", str(pictures / "support")]
    many = sorted(str(path) for path in pictures.glob("many*.png"))
    assert main(["predict", "photographs", *support, *many]) == 0
    said = capsys.readouterr().out
    assert "many39.png" in said
    assert "many40.png" not in said
    assert "5 more pictures; --csv or --json prints all of them, --html FILE writes a page" in said
    assert "labels of all 45: red 45" in said
    assert main(["predict", "photographs", *support, *many[:40]]) == 0
    assert "more pictures" not in capsys.readouterr().out
    assert main(["predict", "photographs", *support, *many, "--csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 46


@pytest.fixture(scope="module")
def omniglot_classes(tmp_path_factory):
    """Four classes of built-in characters with six drawings each to learn from, and two classes more.

    With seeds 0 to 7 the model refuses 10, 14, 14, 14, 14, 14, 11 and 14 of the 14 drawings of the two others.
    """
    source = glyphs(seed=1, device=torch.device("cpu"), ways=6, shots=7, queries=1)
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
    assert "none of these: the limit refuses 5% of these 24 pictures, each left out in turn; of new ones" in said
    assert "  pictures of a class that was not learnt, each class in turn: " in said
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
    own = [row["label"] for row in found if any(f"/c{i}/" in row["image"] for i in range(4))]
    assert own.count("none of these") <= len(own) / 2, "of new drawings of the classes that were learnt"
    others = [row["label"] for row in found if "/c4/" in row["image"] or "/c5/" in row["image"]]
    assert others.count("none of these") >= len(others) - 3
    assert f"of classes that were not learnt: c4, c5; {others.count('none of these')} named none of these" in said.err
    assert "fit no class; the limit refuses 5.0% of the pictures it was measured on" in said.err


def test_a_class_named_none_of_these_is_told(pictures, capsys):
    """Then no picture is refused, and the user hears why."""
    (pictures / "support" / "red").rename(pictures / "support" / "none of these")
    out = str(pictures / "mine.st")
    why = "a class is named 'none of these', so every picture gets a class"
    assert main(["adapt", "photographs", "--support", str(pictures / "support"), "--out", out]) == 0
    assert why in capsys.readouterr().out
    assert main(["predict", out, str(pictures / "query" / "blue"), "--csv"]) == 0
    assert why in capsys.readouterr().err


def test_files_of_features_and_unchecked_files_get_a_limit_too(omniglot_classes, tmp_path, capsys):
    """A model of features alone, which grows by two classes; `--no-check` leaves out the accuracy, not the limit."""
    untrained({"name": "conv4", "width": 8, "norm": "layer"}, {"name": "protonet"}).save(tmp_path / "model.st")
    out, support = str(tmp_path / "mine.st"), str(omniglot_classes / "support")
    assert main(["adapt", str(tmp_path / "model.st"), "--support", support, "--out", out, "--no-check"]) == 0
    said = capsys.readouterr().out
    assert "accuracy" not in said
    assert "of these 24 pictures" in said
    calibration = fmaml.load_adapted(out).calibration
    assert calibration is not None
    assert calibration.pictures == 24
    query = omniglot_classes / "query"
    assert main(["adapt", out, "--support", str(query)]) == 0
    grown = fmaml.load_adapted(out)
    assert grown.kept is not None
    assert grown.kept.of_features
    assert grown.calibration is not None
    assert grown.calibration.pictures == sum((grown.counts or {}).values()) == 42
    assert "of these 42 pictures, a tenth of them left out in turn" in capsys.readouterr().out


def test_a_newline_in_a_name_stays_on_its_line(pictures, capsys):
    (pictures / "support" / "red").rename(pictures / "support" / "r\ned")
    support = str(pictures / "support")
    assert main(["adapt", "photographs", "--support", support, "--out", str(pictures / "m.st")]) == 0
    assert "r\ned" not in capsys.readouterr().out


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
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<h2>none of these</h2>" in page
    assert "fit no class; the limit refuses 5.0% of the pictures it was measured on" in page


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
