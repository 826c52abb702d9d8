"""What the headers of the experiments claim is what was measured."""

from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent


@pytest.fixture
def headers(monkeypatch):
    monkeypatch.syspath_prepend(str(TOP / "benchmarks"))
    import headers

    return headers


def test_every_header_is_as_measured(headers, capsys):
    assert headers.main() == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("97.75 +- 0.32", "97.76 +- 0.32", "97.76 +- 0.32: in no result file"),
        ("97.75 +- 0.32", "97.75 +- 0.31", "97.75 +- 0.31: in no result file"),
        ("commit      ce1", "commit      fe1", "commit fe101a98e355: the result files have ce101a98e355"),
        ("time        28:34", "time        28:24", "time 28:24: the result files have 1714 s"),
        ("# hardware ", "# machine ", "no hardware"),
        ("ours        97.75 +- 0.32", "ours        98.7 +- 0.4", "98.7 +- 0.4: in no result file"),
        ("is one class.", "is one class: 96.11 +- 0.41 %.", "96.11 +- 0.41: in no result file"),
    ],
)
def test_a_wrong_claim_is_found(headers, tmp_path, before, after, fault):
    text = (TOP / "experiments/omniglot.yaml").read_text(encoding="utf-8")
    path = tmp_path / "omniglot.yaml"
    path.write_text(text, encoding="utf-8")
    assert headers.faults(path) == []
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    assert headers.faults(path) == [fault]


def test_another_setting_than_the_measured_one_is_found(headers, tmp_path):
    text = (TOP / "experiments/algorithms/imaml.yaml").read_text(encoding="utf-8")
    path = tmp_path / "algorithms/imaml.yaml"
    path.parent.mkdir()
    path.write_text(text.replace("  cg_steps: 5", "  cg_steps: 4"), encoding="utf-8")
    assert headers.faults(path) == ["algorithm.cg_steps: 4, but it was measured with 5"]
    for said, found in (("5.", 0), ("5,", 0), ("50", 1), ("5.5", 1)):
        other = text.replace("\n\n", f" algorithm.cg_steps={said}\n\n", 1).replace("  cg_steps: 5", "  cg_steps: 4")
        path.write_text(other, encoding="utf-8")
        assert len(headers.faults(path)) == found


@pytest.mark.parametrize(
    ("ours", "found"),
    [
        ("not measured yet", []),
        ("good", ["`ours` has no figure and does not say: not measured"]),
        ("9.1 +- 0.1 %", ["no result file"]),
    ],
)
def test_what_is_not_measured_says_so(headers, tmp_path, ours, found):
    path = tmp_path / "another.yaml"
    lines = [f"# {name:12}-\n" for name in headers.FIELDS]
    path.write_text("".join(lines).replace("ours        -", f"ours        {ours}") + "\ndata: {}\n", encoding="utf-8")
    assert headers.faults(path) == found
