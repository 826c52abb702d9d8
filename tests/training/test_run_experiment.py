"""`fmaml run` from the command to the last picture, on small networks and few steps."""

import contextlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from shipped import CHARACTERS, EACH, FORMS, PATHS, SMALL, smallest

import fmaml
from fmaml.cli.main import main
from fmaml.config.load import load_config
from fmaml.tree import map_leaves

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FILES = {
    ".lock",
    "checkpoints",
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "best.safetensors",
    "last.safetensors",
    "model.safetensors",
    "results.json",
    "scores.jsonl",
    "learning_curve.png",
    "by_inner_step.png",
    "task.png",
    "report.html",
}
PICTURES = {name for name in FILES if name.endswith(".png")}


def run(out: Path, *overrides: str) -> int:
    return main(["run", "omniglot", *CHARACTERS, *SMALL, *overrides, "--out", str(out), "--device", "cpu"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, _draw) -> tuple[Path, str]:
    """The folder of a run with its pictures, and what it has printed."""
    out, printed = tmp_path_factory.mktemp("whole") / "out", io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.MonkeyPatch.context() as patch:
        for name, function in _draw.items():
            patch.setattr(name, function)
        assert run(out) == 0
    return out, printed.getvalue()


def test_leaves_all_that_a_run_should(whole):
    out, printed = whole
    assert {path.name for path in out.iterdir()} == FILES
    for word in ("5-way 1-shot", "5 queries a class", "12 tasks", "423 unseen classes", "seed 0", "transductive"):
        assert word in " ".join(printed.split()), printed

    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["kind"] == "train"] == [1, 2, 4, 6]
    assert [r["step"] for r in rows if r["kind"] == "val"] == [3, 6]
    results = json.loads((out / "results.json").read_text())
    assert [len(column) for column in results["results"].values()] == [3, 3]
    assert (results["ways"], results["shots"], results["queries"], results["tasks"]) == (5, 1, 5, 12)
    assert json.loads((out / "environment.json").read_text())["versions"]["torch"] == torch.__version__
    for name in PICTURES:
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20


def test_saved_parameters_are_those_that_were_trained(whole):
    params = load_file(whole[0] / "last.safetensors")
    fresh = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=8).init(torch.Generator().manual_seed(0))
    assert params.keys() == fresh.keys()
    assert not any(torch.equal(params[k], fresh[k]) for k in params)


def test_the_resolved_config_runs_again_to_the_same_bits(whole, tmp_path):
    assert main(["run", str(whole[0] / "config.yaml"), "--out", str(tmp_path / "b"), "--device", "cpu"]) == 0
    one, two = (load_file(out / "last.safetensors") for out in (whole[0], tmp_path / "b"))
    assert all(torch.equal(one[k], two[k]) for k in one)
    a, b = (json.loads((out / "results.json").read_text())["results"] for out in (whole[0], tmp_path / "b"))
    assert a == b


def test_logging_and_validation_do_not_change_training(whole, tmp_path):
    run(tmp_path / "b", "train.log_every=1", "train.validate_every=2", "train.validate_tasks=4", "eval.tasks=1")
    one, two = (load_file(out / "last.safetensors") for out in (whole[0], tmp_path / "b"))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_best_is_the_best_on_validation(tmp_path):
    run(
        tmp_path / "a",
        "optimizer.lr=0.002",
        "train.meta_steps=12",
        "train.validate_every=6",
        "eval.tasks=1",
        "train.schedule=constant",
    )
    rows = [json.loads(line) for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    val = {r["step"]: r["score"] for r in rows if r["kind"] == "val"}
    best, last = (load_file(tmp_path / "a" / f"{name}.safetensors") for name in ("best", "last"))
    same = all(torch.equal(best[k], last[k]) for k in best)
    assert same == (max(val, key=lambda step: (val[step], -step)) == 12)


def test_dry_run_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "omniglot", *CHARACTERS, *SMALL, "--dry-run"]) == 0
    assert "nothing was trained" in " ".join(capsys.readouterr().out.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.pictures
def test_default_folder_is_runs_name_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "omniglot", *CHARACTERS, *SMALL, "train.meta_steps=1"]) == 0
    (folder,) = (tmp_path / "runs/omniglot").iterdir()
    assert {path.name for path in folder.iterdir()} == FILES


@pytest.mark.pictures
def test_languages_are_held_against_the_best_that_is_possible(tmp_path, capsys):
    small = [*SMALL, "data.name=markov", "model.width=8", "train.baseline=false"]
    assert main(["run", "markov", *small, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES - {"task.png"} | {"samples.txt"}
    columns = json.loads((tmp_path / "out/results.json").read_text())["results"]
    assert list(columns) == ["maml", "best possible (Bayes)", "entropy rate"]
    model, best, entropy = ([row["mean"] for row in column] for column in columns.values())
    assert best == best[:1] * 3
    assert entropy[0] < best[0] < min(model)
    printed = " ".join(capsys.readouterr().out.split())
    assert "bits per symbol" in printed
    assert f"{best[0]:.3f} ±" in printed
    samples = (tmp_path / "out/samples.txt").read_text(encoding="utf-8")
    assert samples.count("before adaptation") == samples.count("after 2 inner steps") == 4


@pytest.mark.pictures
@pytest.mark.real_data("udhr")
def test_real_languages(tmp_path):
    small = [*SMALL, "data.name=udhr", "model.width=8", "train.meta_steps=2", "eval.tasks=2"]
    assert main(["run", "languages", *small, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert "given" in (tmp_path / "out/samples.txt").read_text(encoding="utf-8")


@pytest.mark.real_data("omniglot")
def test_real_omniglot(tmp_path, capsys):
    assert run(tmp_path / "out", "data.name=omniglot") == 0
    assert "(omniglot)" in " ".join(capsys.readouterr().out.split())


def test_a_quick_run_takes_drawn_characters_where_omniglot_is_missing(tmp_path, capsys):
    less = [*SMALL, "model.width=8", "train.meta_steps=2", "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["run", "omniglot", "--quick", *less]) == 0
    said = capsys.readouterr()
    assert "no files of omniglot on this computer: using built-in drawn characters instead" in said.err
    assert "maml on glyphs" in " ".join(said.out.split())
    *_, report, predict, demo = said.out.splitlines()
    assert report == f"open {tmp_path}/out/report.html: results, learning curve, test tasks"
    assert predict.startswith(f"next: `fmaml predict {tmp_path}/out --support MY_CLASSES PICTURE`")
    assert "fmaml demo" in demo
    assert (tmp_path / "out/report.html").exists()


@pytest.mark.slow
def test_the_short_form_of_omniglot_is_right_in_85_of_100(tmp_path):
    """The first command of the README, a minute or two."""
    assert main(["run", "experiments/omniglot.yaml", "--quick", "--out", str(tmp_path / "out")]) == 0
    columns = json.loads((tmp_path / "out/results.json").read_text())["results"].values()
    assert min(column[-1]["mean"] for column in columns) > 0.85


def test_a_folder_that_is_named_has_no_stand_in(tmp_path, capsys):
    assert main(["run", "omniglot", "--quick", f"data.root={tmp_path}", "--out", str(tmp_path / "out")]) == 2
    assert f"data.root = {tmp_path}: no Omniglot in" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(set(PATHS) - set(FORMS)), ids=lambda path: f"{path.parent.stem}-{path.stem}")
def test_an_experiment_that_differs_in_numbers_alone_begins(path, tmp_path, monkeypatch, request):
    """It trains by `-m slow`, in the test below."""
    assert main(["run", str(path), *smallest(path, tmp_path, monkeypatch, request), "--dry-run"]) == 0


@pytest.mark.parametrize("path", EACH, ids=lambda path: f"{path.parent.stem}-{path.stem}")
def test_every_experiment_trains(path, tmp_path, monkeypatch, request):
    small = smallest(path, tmp_path, monkeypatch, request)
    assert main(["run", str(path), *small, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert all(value.isfinite().all() for value in load_file(tmp_path / "out/best.safetensors").values())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["algorithm.name=protonet"],
            '"protonet": it needs class numbers as targets, which data.name = sinusoid does not have; give maml',
        ),
        (["algorithm.name=anil"], "anil: only = ['head.*']: 'head.*' matches no parameter; there are ['layer1.w"),
    ],
)
def test_an_algorithm_that_makes_no_sense_here_is_refused_before_anything_is_written(tmp_path, capsys, settings, said):
    out = tmp_path / "out"
    assert main(["run", "sinusoid", *SMALL, "train.baseline=false", *settings, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert f"algorithm.name = {said}" in error
    assert "Traceback" not in error
    assert not out.exists()


def test_what_an_algorithm_learns_beside_the_parameters_is_saved_by_name(tmp_path):
    assert run(tmp_path / "out", "algorithm.name=mamlpp", "algorithm.steps=2", "optimizer.lr=0.01") == 0
    saved = load_file(tmp_path / "out/last.safetensors")
    assert saved["rates/conv1.weight"].shape == (2,)
    assert saved["norms/norm1.bias"].shape == (2, 8)
    assert saved["params/head.weight"].shape == (5, 8)
    assert not torch.equal(saved["rates/head.bias"], torch.full((2,), 0.4))


@pytest.mark.pictures
def test_the_baseline_stands_beside(tmp_path, capsys):
    """The sinusoid with its jointly trained rival: two columns, and parameters and metrics of both."""
    out = tmp_path / "out"
    assert main(["run", "sinusoid", *SMALL, "train.meta_steps=20", "--out", str(out), "--device", "cpu"]) == 0
    results = json.loads((out / "results.json").read_text())
    assert list(results["results"]) == ["maml", "joint training, fine-tuned"]
    assert results["metric"] == "MSE"
    assert {path.name for path in (out / "joint").iterdir()} == {
        "checkpoints",
        "metrics.jsonl",
        "best.safetensors",
        "last.safetensors",
    }
    one, two = (load_file(folder / "last.safetensors") for folder in (out, out / "joint"))
    assert not torch.equal(one["layer1.weight"], two["layer1.weight"])
    assert (out / "functions.png").exists()
    assert "joint training, fine-tuned" in " ".join(capsys.readouterr().out.split())


def refusal(capsys, *arguments: str) -> str:
    assert main(["run", "omniglot", *CHARACTERS, *SMALL, *arguments]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return " ".join(error.replace("fmaml: ", "").split())


def test_used_folder_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert "a run never overwrites" in refusal(capsys, "--out", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_out_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert "name a folder that can be written" in refusal(capsys, "--out", str(tmp_path / "file"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_absent_device_is_refused(tmp_path, capsys):
    message = refusal(capsys, "--device", "cuda", "--out", str(tmp_path / "out"))
    assert "--device cuda" in message
    assert "--device cpu" in message
    assert not (tmp_path / "out").exists()


def test_missing_data_is_refused(tmp_path, capsys):
    message = refusal(capsys, "data.name=omniglot", f"data.root={tmp_path}", "--out", str(tmp_path / "out"))
    assert str(tmp_path) in message
    assert "data.name=glyphs" in message
    assert list(tmp_path.iterdir()) == []


def test_missing_data_without_a_network(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("FMAML_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("fmaml.data.sources.omniglot._URL", "http://127.0.0.1:9/")
    message = refusal(capsys, "data.name=omniglot", "--out", str(tmp_path / "out"))
    assert "data.name=glyphs" in message
    assert not (tmp_path / "out").exists()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_broken_zip_is_refused(tmp_path, capsys):
    for name in ("images_background.zip", "images_evaluation.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("images_background/A/character01/1.png", b"no image")
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    message = refusal(capsys, "data.name=omniglot", f"data.root={tmp_path}", "--out", str(tmp_path / "out"))
    assert "images_background.zip" in message
    assert not (tmp_path / "out").exists()


def test_conv4_on_numbers_is_refused(capsys):
    assert main(["run", "omniglot", "data.name=sinusoid"]) == 2
    assert "needs images" in capsys.readouterr().err


@pytest.mark.pictures
def test_no_training_still_reports(tmp_path):
    assert run(tmp_path / "out", "train.meta_steps=0") == 0
    assert (tmp_path / "out/learning_curve.png").exists()


def test_brackets_in_a_folders_name_are_no_markup(tmp_path, capsys):
    assert run(tmp_path / "o[/b]x", "train.meta_steps=1") == 0
    assert "o[/b]x" in capsys.readouterr().out.replace("\n", "")


def test_an_unknown_home_is_refused(capsys):
    assert "not a folder's name" in refusal(capsys, "data.name=omniglot", "data.root=~nobody_of_that_name/x")
    assert "not a folder's name" in refusal(capsys, "data.name=omniglot", "data.root=" + "x" * 5000)


@pytest.mark.parametrize(
    "override",
    [
        "model.width=100000000",
        "data.length=100000000000",
        "data.shots=900000000000",
        "data.queries=999999999999999999",
        "train.meta_batch=1000000000000",
    ],
)
def test_a_size_that_no_memory_holds_is_told_in_one_line_that_names_it(tmp_path, capsys, override):
    small = ["model.layers=1", "model.width=8", "train.meta_steps=2", "train.baseline=false", override]
    assert main(["run", "markov", *small, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "lower the largest of " + override.replace("=", " = ") in line


@pytest.mark.pictures
def test_one_task_has_no_interval_and_results_are_json(tmp_path, capsys):
    assert run(tmp_path / "out", "eval.tasks=1", "train.validate_tasks=1") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "one task gives no interval" in printed
    assert "nan" not in printed

    def no_json(word: str) -> None:
        pytest.fail(word)

    content = json.loads((tmp_path / "out/results.json").read_text(), parse_constant=no_json)
    assert [row["ci95"] for column in content["results"].values() for row in column] == [None] * 6
    lines = (tmp_path / "out/metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=no_json) for line in lines]
    assert [row["ci95"] for row in rows if row["kind"] == "val"] == [None, None]


@pytest.mark.pictures
def test_a_score_that_diverges_is_null_and_drawn_as_nothing(tmp_path):
    small = ["train.meta_steps=1", "train.baseline=false", "train.validate_tasks=2", "eval.tasks=2", "eval.steps=40"]
    small += ["algorithm.inner_lr=300", "train.on_nan=skip"]
    assert main(["run", "sinusoid", *small, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    column = json.loads((tmp_path / "out/results.json").read_text(), parse_constant=pytest.fail)["results"]["maml"]
    assert column[0]["mean"] > 0
    assert column[-1]["mean"] is None


@pytest.mark.parametrize("place", ["used", "file", "below a file", "held"])
def test_out_is_looked_at_before_data_are_read(tmp_path, capsys, monkeypatch, place):
    from fmaml.checkpoints.run_lock import locked

    monkeypatch.setattr("fmaml.training.run_experiment.build", lambda *_: pytest.fail("data were read"))
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    (tmp_path / "held").mkdir()
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "out" if place == "below a file" else tmp_path / place
    said = {"used": "a run never overwrites", "held": "in use by process"}.get(
        place, "name a folder that can be written"
    )
    before = sorted(tmp_path.rglob("*"))
    with locked(tmp_path / "held"):
        assert said in refusal(capsys, "--out", str(out))
    assert {path.name for path in tmp_path.rglob("*")} == {path.name for path in before} | {".lock"}


@pytest.mark.pictures
def test_a_diverged_network_is_told_and_is_not_the_best(tmp_path, monkeypatch, capsys):
    """A theta that gives NaN on unseen tasks once scored as chance, and could be chosen as the best."""
    from fmaml.training import run_experiment as run

    def diverged(experiment):
        def trajectory(theta, support, steps=1):
            return [theta, *[map_leaves(lambda leaf: leaf * torch.nan, theta)] * steps]

        return experiment._replace(algorithm=experiment.algorithm._replace(trajectory=trajectory))

    real = run.build
    monkeypatch.setattr(run, "build", lambda *arguments: diverged(real(*arguments)))
    out = tmp_path / "out"
    small = ["data.name=glyphs", "model.width=8", "train.meta_steps=2", "train.meta_batch=2", "train.validate_every=1"]
    assert main(["run", "omniglot", *small, "train.validate_tasks=2", "eval.tasks=2", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "this theta is not kept as the best" in said
    assert "not finite: the network diverges on test tasks; lower optimizer.lr" in said
    results = json.loads((out / "results.json").read_text())["results"]
    assert all(column[0]["mean"] is not None and column[1]["mean"] is None for column in results.values())
    first = run.initial_params(real(load_config("omniglot", small), torch.device("cpu")), 0, torch.device("cpu"))
    assert all(torch.equal(value, first[name]) for name, value in load_file(out / "best.safetensors").items())


def test_what_a_network_refuses_is_told_in_one_line(capsys, tmp_path):
    for i in range(30):
        (tmp_path / f"images/{i}").mkdir(parents=True)
        for j in range(20):
            Image.new("RGB", (8, 8), (i * 8, j, 0)).save(tmp_path / f"images/{i}/{j}.png")
    data = f"data={{name: folder, root: {tmp_path / 'images'}, size: 8}}"
    assert main(["run", "omniglot", data, "model.pool=max", "--dry-run"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "fmaml: model.name = conv4: conv4: images of 8x8 vanish in 4 poolings; give 16x16 or larger"


def test_the_users_matplotlib_does_not_stop_a_run(tmp_path):
    """A nonsense backend, and a matplotlibrc that asks for LaTeX: both once failed after the training."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    environment = {**os.environ, "MPLBACKEND": "nonsense", "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    code = "from fmaml.files.figures import plt, save_figure; from pathlib import Path; figure, axes = plt.subplots(); "
    code += "axes.set_title('50 %_$'); save_figure(figure, Path('out.png'))"
    environment["PYTHONPATH"] = str(Path(fmaml.__file__).parent.parent)
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out.png").stat().st_size > 1000
