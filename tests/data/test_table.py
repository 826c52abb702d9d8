"""Tables as tasks: what is drawn, in which units, beside which baselines, and what is said of a file that is wrong."""

import csv
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from problems import relative

import fmaml
from fmaml.cli.main import main
from fmaml.data.source import Source
from fmaml.data.sources.table import table
from fmaml.data.tables.linear import PENALTIES, Linear, fit_linear, linear_references, ridge
from fmaml.data.tables.rows import Rows
from fmaml.errors import Error
from fmaml.evaluation import evaluate
from fmaml.tree import take
from fmaml.types import Batch, Task

CPU = torch.device("cpu")
SHOPS = 10


def write(path: Path, lines: list[str], **encoding) -> str:
    path.write_text("\n".join(lines), **{"encoding": "utf-8", **encoding})
    return str(path)


@pytest.fixture
def shops(tmp_path) -> str:
    """Sales of ten shops, 8 days each: sales = 100 + shop * size + 3 day; size is unlike in each row, city a word."""
    rng = np.random.default_rng(0)
    rows = [
        f"shop {shop},{day},{size:.6f},Ghent,{100 + shop * size + 3 * day:.6f}"
        for shop in range(SHOPS)
        for day, size in enumerate(rng.normal(50, 10, 8))
    ]
    return write(tmp_path / "shops.csv", ["shop,day,size,city,sales", *rows])


def make(file: str, **settings: Any) -> Source:
    return table(seed=0, device=CPU, **{"file": file, "task": "shop", "target": "sales", **settings})


def rows_in(source: Source) -> dict[str, Rows]:
    return cast(dict[str, Rows], source.data)


def test_the_rows_of_a_task_are_different_rows_of_one_group(shops):
    source = make(shops, shots=3, queries=4)
    tasks = source.sample("train", 0, range(50))
    assert (source.inputs, source.outputs, tasks.support.x.shape, tasks.query.y.shape) == (
        *((2,), 1),
        *((50, 3, 2), (50, 4, 1)),
    )
    assert source.scaling is not None
    assert (source.scaling.columns, source.scaling.target) == (("day", "size"), "sales")  # city is words
    for i in range(50):
        x = source.scaling.units(torch.cat([tasks.support.x[i], tasks.query.x[i]]).double())
        y = torch.cat([tasks.support.y[i], tasks.query.y[i]]).double() * source.scaling.y_scale + source.scaling.y_mean
        shop = (y[:, 0] - 100 - 3 * x[:, 0]) / x[:, 1]
        assert torch.allclose(shop, shop.round().mean(), atol=1e-4)
        assert len(x[:, 0].round().unique()) == 7


def test_train_val_and_test_share_no_task_and_hold_every_row(shops):
    source = make(shops, shots=3, queries=4)
    splits = rows_in(source)
    counts = {name: len(rows.counts) for name, rows in splits.items()}
    assert counts == source.about["groups"] == {"train": 6, "val": 2, "test": 2}
    rows = torch.cat([rows.x for rows in splits.values()])
    assert len(rows) == len(rows.unique(dim=0)) == 8 * SHOPS
    other = rows_in(make(shops, shots=3, queries=4, split_seed=1))
    assert not torch.equal(other["test"].x, splits["test"].x)


def test_the_training_rows_alone_are_standardised(shops):
    splits = rows_in(make(shops, shots=3, queries=4))
    for part in (splits["train"].x, splits["train"].y):
        assert torch.allclose(part.mean(0), torch.zeros(1), atol=1e-5)
        assert torch.allclose(part.std(0, correction=0), torch.ones(1), atol=1e-5)
    assert float(splits["test"].y.mean().abs()) > 0.01


def test_the_metric_is_in_the_units_of_the_target(shops):
    source = make(shops, queries=3)
    assert source.scaling is not None
    with open(shops, encoding="utf-8") as file:
        sales = [float(row["sales"]) for row in csv.DictReader(file)]
    y = torch.tensor([[sales[0]], [sales[1]]])
    seen = (y - source.scaling.y_mean) / source.scaling.y_scale
    assert float(source.metric.fn(seen, seen.flip(0))) == pytest.approx((sales[0] - sales[1]) ** 2, rel=1e-4)


def test_ridge_is_the_minimum_of_its_objective():
    x, y = torch.randn(9, 3, dtype=torch.float64), torch.randn(9, 1, dtype=torch.float64)
    w = ridge(x, y, 0.7).requires_grad_()
    objective = (torch.cat([x, torch.ones(9, 1)], 1) @ w - y).square().sum() + 0.7 * w[:-1].square().sum()
    (slope,) = torch.autograd.grad(objective, w)
    assert float(slope.abs().max()) < 1e-12


def test_the_references_on_a_task_that_is_a_shifted_line():
    """y = 2 x + 5 with training rows on y = 2 x: moved to the support set the line is exact, unmoved it is off by 5."""
    x = torch.arange(6.0)[None, :, None]
    task = Task(Batch(x[:, :2], 2 * x[:, :2] + 5), Batch(x[:, 2:], 2 * x[:, 2:] + 5))
    found = linear_references(task, Linear(torch.tensor([[2.0], [0.0]], dtype=torch.float64), 1e-9))
    assert float(found["ridge of the support set"]) < 1e-10
    assert float(found["the same, moved to the support set"]) < 1e-20
    assert float(found["ridge of the training rows"]) == pytest.approx(25)
    assert float(found["mean of the support set"]) == pytest.approx(np.mean([(2 * i - 1) ** 2 for i in range(2, 6)]))


def test_the_penalty_is_the_one_that_does_best_on_training_tasks():
    x, y = torch.randn(50, 6, 3), torch.randn(50, 6, 1)  # of noise nothing can be learnt: the largest penalty is best
    task = Task(Batch(x[:, :4], y[:, :4]), Batch(x[:, 4:], y[:, 4:]))
    assert fit_linear(x[0], y[0], task).penalty == max(PENALTIES)
    line = Task(*(Batch(part.x, part.x @ torch.ones(3, 1)) for part in task))
    assert fit_linear(x[0], y[0], line).penalty == min(PENALTIES)


GOOD = ["shop,day,sales", *(f"{shop},{day},{10 * day + day * day}" for shop in "abc" for day in range(10))]


def changed(line: int, text: str) -> list[str]:
    return [*GOOD[: line - 1], text, *GOOD[line:]]


@pytest.mark.parametrize(
    ("lines", "settings", "message"),
    [
        (changed(4, "a,2,"), {}, r"line 4, column sales: empty: no value; fill it in, or delete the line"),
        (changed(4, "a,2,NA"), {}, r"line 4, column sales: 'NA': no value"),
        (changed(5, "a,two,3"), {}, r"line 5, column day: 'two': not a finite number; correct it, or leave the column"),
        (changed(5, "a,inf,3"), {}, r"line 5, column day: 'inf': not a finite number"),
        (changed(5, 'a,"1,5",3'), {}, r"line 5, column day: '1,5': a number with a comma; write a decimal point"),
        (changed(5, "a,1,5,3"), {}, r"line 5: 4 cells, but the header has 3; .* needs quotes"),
        (changed(5, ",1,3"), {}, r"line 5, column shop: empty: data.task = shop needs a word"),
        (changed(5, 'a,"1,3'), {}, r"line 31: unexpected end of data; save it as CSV"),
        (changed(1, "a,b,c"), {"task": "a"}, r"data.target = sales: .* has no such column; its columns are a, b, c"),
        (["1,2,3", *GOOD[1:]], {}, r"line 1: numbers instead of column names; add a line with names above"),
        (changed(1, "shop,day,day"), {}, r"line 1: column day is there twice"),
        (GOOD[:1], {}, r"no row after the header"),
        ([], {}, r"line 1: fewer than two columns"),
        (GOOD[:11], {"features": ["day"]}, r"data.task = shop: .* has 1 different values there\. .* 3 values or more"),
        (GOOD[:-4], {}, r"line 22: task c has 6 rows, fewer than data.shots \+ data.queries = 10; give at most 6"),
        (GOOD, {"task": "shp"}, r"data.task = shp: .* has no such column; did you mean shop\?"),
        (GOOD, {"features": ["dya"]}, r"data.features = dya: .* did you mean day\?"),
        (GOOD, {"features": ["sales"]}, r"data.features: sales is the task or the target; leave it out"),
        (GOOD, {"features": ["day", "day"]}, r"data.features: day is listed twice"),
        (GOOD, {"target": "shop"}, r"data.target = shop: is also data.task"),
        (GOOD, {"target": "day", "features": ["shop"]}, r"data.features: shop is the task"),
        (
            [f"{line},red" for line in GOOD],
            {"target": "red"},
            r"line 2, column red: 'red': not a finite number; .*class",
        ),
        (
            [f"{line},7" for line in GOOD],
            {"target": "7"},
            r"column 7 is 7 in all rows of the training tasks; name another target",
        ),
        ([line.rpartition(",")[0] for line in GOOD], {"target": "day"}, r"no column of numbers besides shop and day"),
    ],
    ids=lambda value: None if isinstance(value, list) else str(value)[:30],
)
def test_a_table_that_cannot_be_used_is_one_line_with_the_cure(lines, settings, message, tmp_path):
    file = write(tmp_path / "bad.csv", lines)
    with pytest.raises(Error, match=message) as error:
        make(file, strict=True, **settings)
    assert "\n" not in str(error.value)


def test_another_encoding_is_told_by_its_line(tmp_path):
    file = write(tmp_path / "bad.csv", changed(3, "\u00e9,1,2"), encoding="latin-1")
    with pytest.raises(Error, match=r"line 3: not UTF-8; save it as CSV"):
        make(file)


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8"), ("\t", "utf-8"), (",", "utf-16")])
def test_semicolons_tabs_and_utf_16_are_read(separator, encoding, tmp_path):
    plain = make(write(tmp_path / "plain.csv", GOOD)).sample("train", 0, range(3))
    other = write(tmp_path / "other.csv", [line.replace(",", separator) for line in GOOD], encoding=encoding)
    assert torch.equal(make(other).sample("train", 0, range(3)).query.x, plain.query.x)


def test_row_numbers_and_words_are_left_out_and_named(tmp_path, capsys):
    lines = [f"{'' if i == 0 else i},{line},{'id' if i == 0 else 900 + i},red" for i, line in enumerate(GOOD)]
    lines[0] = lines[0].replace(",red", ",colour")
    found = make(write(tmp_path / "more.csv", lines))
    assert cast(Any, found.scaling).columns == ("day",)
    said = capsys.readouterr().err
    assert "columns left out, row numbers: column 1, id" in said
    assert "columns left out, no numbers: colour" in said
    assert "task shop, target sales, by day" in said


def test_missing_values_and_short_tasks_are_left_out_and_counted(tmp_path, capsys):
    lines = [*changed(4, "a,2,NA"), "z,1,2"]
    found = make(write(tmp_path / "gaps.csv", lines), shots=3, queries=3)
    assert sum(found.about["groups"].values()) == 3
    said = capsys.readouterr().err
    assert "1 row left out, without a value in shop, sales, day" in said
    assert "1 task of fewer than 6 rows left out, such as z" in said


def test_features_of_another_table_are_dropped_with_a_line(tmp_path, capsys):
    found = make(write(tmp_path / "mine.csv", GOOD), features=["gdpPercap"])
    assert cast(Any, found.scaling).columns == ("day",)
    said = capsys.readouterr().err
    assert "no column gdpPercap, as in the table of the experiment; every column of numbers is a feature" in said
    assert "data.features" not in said, "the user did not give it"


def test_a_mark_before_the_header_crlf_and_empty_lines_are_read(tmp_path):
    plain = make(write(tmp_path / "plain.csv", GOOD)).sample("train", 0, range(3))
    odd = write(tmp_path / "odd.csv", [*GOOD[:5], "", *GOOD[5:], ""], encoding="utf-8-sig", newline="\r\n")
    found = make(odd).sample("train", 0, range(3))
    assert torch.equal(found.query.x, plain.query.x)
    assert torch.equal(found.query.y, plain.query.y)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(Error, match=r"data.file = .*none.csv: No such file or directory; name a CSV file"):
        make(str(tmp_path / "none.csv"))
    with pytest.raises(Error, match=r"not a regular file, .*; name a CSV file"):
        make(str(tmp_path))


@pytest.mark.pictures
def test_a_trained_model_takes_and_gives_the_units_of_the_table(public_tables, tmp_path):
    """On countries never seen: what the run scores is what the model says of their life expectancy in years."""
    out = tmp_path / "out"
    small = ["train.meta_steps=30", "train.meta_batch=4", "train.validate_tasks=4", "train.baseline=false"]
    settings = [f"data.file={public_tables / 'gapminder.csv'}", "eval.tasks=8", "eval.steps=2", "train.compile=false"]
    assert main(["run", "table", *settings, *small, "--out", str(out), "--device", "cpu"]) == 0
    learner = fmaml.load(out)
    source = table(
        seed=0, device=CPU, file=settings[0].partition("=")[2], task="country", target="lifeExp", features=["year"]
    )
    scaling, task = source.scaling, take(source.sample("test", 0, range(1)), 0)
    assert scaling is not None
    years, age = (
        [scaling.units(batch.x) for batch in task],
        [batch.y * scaling.y_scale + scaling.y_mean for batch in task],
    )
    assert {round(year) % 5 for year in years[0].flatten().tolist()} == {2}  # 1952, 1957, ..
    said = learner.adapt(years[0], age[0]).outputs(years[1])
    network, theta = learner.for_outputs(1)
    metric_fn = fmaml.transductive(network.model.apply, source.metric.fn)
    scored = evaluate(network.algorithm, metric_fn, theta, source.sample("test", 0, range(1)), steps=2)[0, -1]
    assert relative((said - age[1]).square().mean(), scored) < 1e-3
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert set(results["results"]) > {"ridge of the support set", "mean of the support set"}
    assert (out / "predictions.png").exists()
    assert "gapminder" not in json.dumps(learner.metadata)  # a path of the machine that trained it
