"""Signals as N-way K-shot tasks: which row becomes which class, in which units, and what is refused."""

import csv
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

import fmaml
from fmaml.cli.main import main
from fmaml.data.class_examples import Split
from fmaml.data.source import Source
from fmaml.data.sources.signals import signals
from fmaml.errors import Error

CPU = torch.device("cpu")


@pytest.fixture
def waves(tmp_path) -> str:
    """16 classes of 5 signals of two channels and 20 samples: the first at the class's level, the second 100 above."""
    rng = np.random.default_rng(0)
    file = tmp_path / "waves.csv"
    rows = [
        [f"c{level:02}", *(level + 0.01 * rng.normal(size=20)), *(100 + level + 0.01 * rng.normal(size=20))]
        for level in range(16)
        for _ in range(5)
    ]
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([["label", *range(40)], *rows])
    return str(file)


def make(file: str, **settings: Any) -> Source:
    given = {"file": file, "channels": 2, "ways": 3, "shots": 2, "queries": 3, **settings}
    return signals(seed=0, device=CPU, **given)


def test_the_signals_of_a_way_are_of_one_class_and_all_different(waves):
    source = make(waves)
    tasks = source.sample("train", 0, range(20))
    assert tasks.support.x.shape == (20, 6, 2, 20)
    assert source.scaling is not None
    for task in range(20):
        of_class = {}
        for batch in tasks:
            units = source.scaling.units(batch.x[task].double())
            assert torch.allclose(units[:, 1].mean(-1) - units[:, 0].mean(-1), torch.tensor(100.0).double(), atol=0.05)
            for level, label in zip(units[:, 0].mean(-1).round().tolist(), batch.y[task].tolist(), strict=True):
                of_class.setdefault(label, set()).add(level)
        assert all(len(levels) == 1 for levels in of_class.values())
        assert len(set.union(*of_class.values())) == 3


def test_channels_of_the_training_classes_are_standardised(waves):
    train = cast(dict[str, Split], make(waves).data)["train"].images
    assert torch.allclose(train.mean((0, 2)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(train.std((0, 2), correction=0), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 3}, r"data.channels = 3: .* has 40 samples a row, .*; give a divisor of 40"),
        ({"label": "labl"}, r"data.label = labl: .* did you mean label\?"),
        ({"shots": 4}, r"data.shots \+ data.queries = 7: class c\d\d of split train has 5 examples"),
        ({"ways": 4}, r"data.ways = 4: split val has 3 classes"),
        ({"label": "0"}, r"data.channels = 2: .* has 39 samples a row"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message, waves):
    with pytest.raises(Error, match=message):
        make(waves, **settings)


def test_a_channel_that_never_varies_is_refused(tmp_path):
    file = tmp_path / "flat.csv"
    file.write_text("label,a,b\n" + "".join(f"{c},{i},7\n" for c in "abcd" for i in range(5)), encoding="utf-8")
    with pytest.raises(Error, match="channel 2 is constant over the training classes"):
        make(str(file), ways=1)


def test_conv1d_refuses_what_are_no_signals_by_name(waves, capsys):
    assert main(["run", "omniglot", "data.name=glyphs", "model={name: conv1d}", "--dry-run"]) == 2
    assert "it needs signals, which data.name = glyphs does not have; give conv4" in capsys.readouterr().err
    short = [f"data.file={waves}", "data.channels=2", "data.ways=3", "data.queries=2", "--dry-run", "--device", "cpu"]
    assert main(["run", "signals", *short]) == 2
    assert "signals of 20 samples vanish in 6 halvings; give layers = 4 at most" in capsys.readouterr().err


@pytest.mark.pictures
def test_a_model_of_real_signals_names_them_in_their_own_units(public_tables, tmp_path):
    """The pressure of pigs never seen, in the numbers of the file."""
    file, out = public_tables / "pigs.csv", tmp_path / "out"
    small = ["train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2", "eval.tasks=2", "eval.steps=1"]
    assert (
        main(["run", "signals", f"data.file={file}", "model.width=8", *small, "--out", str(out), "--device", "cpu"])
        == 0
    )
    assert (out / "task.png").exists()
    with file.open(encoding="utf-8") as opened:
        rows = [row for row in csv.reader(opened) if row[0] in ("pig 1", "pig 2")]
    x = torch.tensor([[list(map(float, row[1:]))] for row in rows])  # [12, 1, 2000]
    seen = {"one": x[:1], "two": x[1:2]}
    adapted = fmaml.load(out).adapt(seen)
    scaling = adapted.blueprint.scaling
    assert scaling is not None
    learner = fmaml.load(out)
    plain = replace(learner, blueprint=replace(learner.blueprint, scaling=None))
    by_hand = plain.adapt({name: scaling.inputs(part) for name, part in seen.items()})
    assert torch.allclose(adapted.outputs(x), by_hand.outputs(scaling.inputs(x)), atol=1e-5)
