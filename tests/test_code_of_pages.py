"""The code of the slides, the concepts and the streams runs as printed; the FAQ quotes messages that exist."""

import re
import sys
from pathlib import Path

import children

TOP = Path(__file__).parent.parent


def page(name: str) -> str:
    return (TOP / f"docs/{name}.md").read_text(encoding="utf-8")


def output_of(name: str, folder: Path, scripts: int = 1) -> str:
    """The output of the first of the scripts on a page."""
    script, *others = re.findall(r"```py(?:thon)?\n(.*?)```", page(name), re.DOTALL)
    assert len(others) == scripts - 1
    assert max(map(len, script.splitlines())) <= 88
    (folder / "script.py").write_text(script, encoding="utf-8")
    ran = children.run([sys.executable, folder / "script.py"], cwd=folder, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_gradient_of_the_slides_is_ours(tmp_path):
    assert output_of("slides", tmp_path) == ""


def test_the_shapes_of_a_task_are_those_that_the_concepts_say(tmp_path):
    shown = re.findall(r"# (\[.*\]): ", page("concepts"))
    printed = output_of("concepts", tmp_path)
    assert len(shown) == 3
    assert all(shape in printed for shape in shown)


def test_the_streams_are_scored_by_position(tmp_path):
    printed = output_of("streams", tmp_path, scripts=2).strip()
    assert f"print(by_position.shape)  # {printed}: streams, chunks" in page("streams")


def test_the_faq_quotes_messages_that_exist():
    quoted = re.findall(r"^### `(.*)`$", page("faq"), re.MULTILINE)
    source = "".join(path.read_text(encoding="utf-8") for path in (TOP / "fmaml").rglob("*.py"))
    assert len(quoted) > 15
    assert [message for message in quoted if message not in source] == []
