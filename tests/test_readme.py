"""The README's script runs as it stands, and learns."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_script(tmp_path):
    (script,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(script.splitlines()) <= 32
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    accuracy = [float(value) for value in re.findall(r"inner steps: ([\d.]+)%", ran.stdout)]
    assert len(accuracy) == 4
    assert accuracy[0] < 30
    assert accuracy[-1] > 40


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (Path(__file__).parent.parent / target).exists(), target


def test_commands_exist():
    from fmaml.cli import COMMANDS

    assert {word for word in re.findall(r"^fmaml (\w+)", README, re.MULTILINE)} == set(COMMANDS)
