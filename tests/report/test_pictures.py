"""Pictures in the formats that a paper needs."""

import re

import pytest
from shipped import CHARACTERS, SMALL

from fmaml.cli.main import main
from fmaml.files.figures import also_in, plt, save_figure

NAMES = ("learning_curve", "by_inner_step", "task")
BEGINS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


def drawn(path):
    figure, axes = plt.subplots()
    axes.plot([1, 2], [3, 4], clip_on=True, label="a line")
    axes.legend()
    save_figure(figure, path)


def test_the_same_figure_has_the_same_bits(tmp_path, monkeypatch):
    for folder, epoch in (("a", "1"), ("b", "1000000000")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        with also_in(["svg", "pdf"]):
            drawn(tmp_path / folder / "x.png")
    for suffix, begins in BEGINS.items():
        one, two = ((tmp_path / folder / f"x.{suffix}").read_bytes() for folder in "ab")
        assert one == two
        assert one.startswith(begins)
    assert not re.search(rb"/CreationDate|/Type3", (tmp_path / "a/x.pdf").read_bytes())
    drawn(tmp_path / "y.png")
    assert not (tmp_path / "y.svg").exists(), "only within the block"


@pytest.mark.pictures
def test_a_run_writes_all_its_pictures_in_the_formats_it_is_given(tmp_path):
    small = ["data.queries=1", "train.meta_steps=2", "train.validate_every=1", "train.validate_tasks=2", "eval.tasks=3"]
    words = ["run", "omniglot", *CHARACTERS, *SMALL, *small, "--device", "cpu", "--format", "svg,pdf"]
    for folder in "ab":
        assert main([*words, "--out", str(tmp_path / folder)]) == 0
    for name in NAMES:
        for suffix, begins in BEGINS.items():
            one, two = ((tmp_path / folder / f"{name}.{suffix}").read_bytes() for folder in "ab")
            assert one.startswith(begins)
            assert one == two, name


@pytest.mark.parametrize("command", [["run", "omniglot"], ["resume", "nowhere"]])
@pytest.mark.parametrize("word", ["svg,jpeg", "", "svg,", "SVG PDF"])
def test_another_format_is_refused_with_the_choices(command, word, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--format", word]) == 2
    said = capsys.readouterr().err
    assert "must be one or more of png, svg, pdf" in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
