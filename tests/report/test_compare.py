"""`fmaml runs` and `fmaml compare`: folders that runs have written, in whole, in part, or not at all."""

import json
import math
import os
import random
import subprocess
import sys
from statistics import mean, stdev

import pytest
from pages import text_of

from fmaml.cli.main import main
from fmaml.intervals import t95
from fmaml.report.paired import paired_difference, why_other_tasks

FACTS = {"config": {"name": "glyphs", "ways": 5, "train_ways": None}, "data": {"test": "a", "train": "b"}, "seed": 0}


def make_run(folder, scores, facts=FACTS, name="x", finished=True):
    folder.mkdir(parents=True)
    config = f"name: '{name}'\nseed: 0\ndata: {{name: glyphs}}\nmodel: {{name: conv4}}\nalgorithm: {{name: maml}}\n"
    (folder / "config.yaml").write_text(config + "train: {meta_steps: 4}\n")
    (folder / "metrics.jsonl").write_text(
        '{"kind": "train", "step": 3, "before": 0.2, "after": 0.5}\n'
        '{"kind": "val", "step": 4, "score": 0.6, "ci95": 0.1}\n{"kin'
    )
    row = {"column": "maml transductive", "first": 0, "end": len(scores), "scores": [[0.2, s] for s in scores]}
    (folder / "scores.jsonl").write_text(f"{json.dumps(facts)}\n{json.dumps(row)}\n")
    if finished:
        numbers = [s for s in scores if s is not None]
        column = [{"mean": 0.2, "ci95": 0.1}, {"mean": mean(numbers), "ci95": 0.1}]
        results = {"metric": "accuracy", "more_is_better": True, "style": ".2%", "results": {"maml": column}}
        (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_the_interval_is_that_of_the_differences():
    draw = random.Random(0)
    hard = [draw.random() for _ in range(50)]
    one = {i: h + draw.gauss(0, 0.05) for i, h in enumerate(hard)}
    two = {i: h + 0.03 + draw.gauss(0, 0.05) for i, h in enumerate(hard)}
    differences = [two[i] - one[i] for i in one]
    found = paired_difference(one, two)
    assert found is not None
    assert found.ci95 is not None
    assert found.mean == pytest.approx(mean(differences))
    assert found.ci95 == pytest.approx(t95(49) * stdev(differences) / math.sqrt(50))
    assert found.ci95 < t95(49) * math.sqrt((stdev(one.values()) ** 2 + stdev(two.values()) ** 2) / 50) / 3  # unpaired


def test_intervals_hold_zero_as_often_as_they_should():
    draw, trials = random.Random(1), 2000
    significant = 0
    for _ in range(trials):
        one, two = ({i: draw.gauss(0, 1) for i in range(100)} for _ in range(2))
        found = paired_difference(one, two)
        significant += found is not None and found.is_significant
    assert 0.035 < significant / trials < 0.07


def test_one_task_none_in_common_and_numbers_that_are_not_finite():
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    assert paired_difference({0: math.nan}, {0: 1.0}) is None
    found = paired_difference({0: 1.0}, {0: 2.0})
    assert found is not None
    assert found.ci95 is None
    assert not found.is_significant


def test_tasks_are_the_same_if_seed_data_and_sizes_are():
    assert why_other_tasks(FACTS, {**FACTS, "config": {**FACTS["config"], "train_ways": 20, "train_shots": 9}}) == ""
    rotated = {**FACTS, "config": {**FACTS["config"], "rotate": ["train"]}}
    assert why_other_tasks(FACTS, rotated) == ""
    assert "data.rotate" in why_other_tasks({**FACTS, "data": {}}, {**rotated, "data": {}})
    assert "seed" in why_other_tasks(FACTS, {**FACTS, "seed": 1})
    assert "data.ways" in why_other_tasks(FACTS, {**FACTS, "config": {**FACTS["config"], "ways": 20}})
    assert "test data" in why_other_tasks(FACTS, {**FACTS, "data": {"test": "z"}})
    assert why_other_tasks({}, FACTS)


def test_a_source_of_ones_own_marks_the_settings_that_keep_the_test_tasks(tmp_path, monkeypatch):
    """Read from its file, without importing it; without the file each setting counts."""
    (tmp_path / "marked_source.py").write_text(
        "raise SystemExit\n"
        "@gives('numbers', 'own_loss')\n"
        "def tasks(root: Annotated[str, FreeOnResume], told: Annotated[bool, KeepsTestTasks] = False, shots: int = 1):"
        " ...\n"
    )
    config = {"name": "marked_source:tasks", "root": "a", "told": False, "shots": 1}
    one = {**FACTS, "config": config}
    other = {**FACTS, "config": {**config, "root": "b", "told": True}}
    assert why_other_tasks(one, other) == "data.root differs, data.told differs"
    monkeypatch.chdir(tmp_path)
    assert why_other_tasks(one, other) == ""
    assert why_other_tasks(one, {**one, "config": {**config, "shots": 2}}) == "data.shots differs"


def test_compare_says_what_is_significant_and_writes_its_page(tmp_path, capsys):
    one = make_run(tmp_path / "<b>&'", [0.5, 0.6, 0.7, 0.6])
    two = make_run(tmp_path / "two", [0.61, 0.7, 0.79, 0.7], name="y")
    same = make_run(tmp_path / "same", [0.5, 0.6, 0.7, 0.7])
    other = make_run(tmp_path / "other", [0.5, 0.6], {**FACTS, "seed": 7})
    page = tmp_path / "c.html"
    assert main(["compare", *map(str, (one, two, same, other)), "--html", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "two − <b>&', transductive: +10.00% ± 1.30% on the same 4 tasks, significant, better" in printed
    assert "not significant: 0 is in the interval" in printed
    assert "other: no paired test with <b>&': seed differs" in printed
    text = text_of(page.read_text(encoding="utf-8"))
    assert "two − <b>&', transductive: +10.00%" in text
    assert "<b>&" not in page.read_text(encoding="utf-8")


def test_a_run_without_results_is_named(tmp_path, capsys):
    one, two = make_run(tmp_path / "a", [0.5, 0.6]), make_run(tmp_path / "b", [None, 0.6], finished=False)
    assert main(["compare", str(one), str(two)]) == 0
    assert f"`fmaml resume {two}` continues" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("results.json", "{", "damaged"),
        ("results.json", "[]", "damaged"),
        ("results.json", '{"results": {"a": [1]}}', "not the results"),
        ("results.json", '{"style": ".999f", "results": {}}', "not the results"),
        ("config.yaml", "a: [", "config.yaml"),
        ("config.yaml", "data: 3", "not the settings"),
    ],
)
def test_damaged_folders_give_one_line(tmp_path, capsys, file, content, said):
    one, two = make_run(tmp_path / "a", [0.5, 0.6]), make_run(tmp_path / "b", [0.5, 0.6])
    (two / file).write_text(content)
    assert main(["compare", str(one), str(two)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert main(["runs", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_foreign_folders_are_refused(tmp_path, capsys):
    one = make_run(tmp_path / "a", [0.5, 0.6])
    for wrong in (tmp_path, tmp_path / "gone"):
        assert main(["compare", str(one), str(wrong)]) == 2
        assert "not the folder of a run" in capsys.readouterr().err
    assert main(["compare", str(one)]) == 2
    assert main(["runs", str(tmp_path / "gone")]) == 2


def test_runs_are_listed_newest_first(tmp_path, capsys):
    old, new = make_run(tmp_path / "x/old", [0.5, 0.6]), make_run(tmp_path / "x/y/new", [0.5, 0.6], finished=False)
    for path in old.iterdir():
        os.utime(path, (1, 1))
    assert main(["runs", str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(str(new))
    assert "not finished" in first
    assert second.startswith(str(old))
    assert "4/4" in second
    assert "accuracy 55.00% ± 10.00%" in second
    assert main(["runs", str(tmp_path / "x/y/new")]) == 0


def test_neither_imports_torch(tmp_path):
    one, two = (str(make_run(tmp_path / name, [0.5, 0.6])) for name in "ab")
    code = "import sys; from fmaml.cli.main import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    for arguments in (["runs", str(tmp_path)], ["compare", one, two, "--html", str(tmp_path / "c.html")]):
        assert (
            subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True).returncode == 0
        )


@pytest.mark.parametrize("tasks", [2, 3, 5, 10])
def test_few_tasks_of_equal_models_are_called_different_in_five_per_cent_of_cases(tasks):
    """Accuracies of 25 queries; with 1.96 standard errors it was 30 % of cases for two tasks."""
    rng = random.Random(0)

    def scores() -> dict[int, float]:
        return {task: sum(rng.random() < 0.9 for _ in range(25)) / 25 for task in range(tasks)}

    found = [significant(scores(), scores()) for _ in range(2000)]
    assert sum(found) / 2000 < 0.07


def test_equal_differences_of_few_tasks_prove_nothing():
    assert not significant({0: 0.5, 1: 0.5}, {0: 0.6, 1: 0.6})
    assert significant(dict.fromkeys(range(8), 0.5), dict.fromkeys(range(8), 0.625))


def significant(one: dict[int, float], two: dict[int, float]) -> bool:
    found = paired_difference(one, two)
    assert found is not None
    return found.is_significant
