"""A dry run writes nothing: not in the home folder, not in the working folder, not beside the images."""

import os
import subprocess
import sys
from pathlib import Path

import children
import pytest
from PIL import Image

SETTINGS = ["data.name=folder", "data.size=8", "data.ways=2", "data.shots=1", "data.queries=1", "model.width=8"]


@pytest.fixture
def place(tmp_path) -> Path:
    """A home folder, a working folder and images of seven classes, half of them split."""
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    for name in [f"train/{letter}" for letter in "abcde"] + ["test/f", "test/g"]:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (9, 9), (40 * i, 0, 0)).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path


def run(place: Path, *words: str, imports: bool = False) -> str:
    """The exit code and what is said, of a process that imports everything or of one that has done so."""
    away = [name for name in os.environ if name.startswith(("XDG_", "FMAML_", "MPL"))]
    home = {"HOME": str(place / "home"), "USERPROFILE": str(place / "home")}
    if imports:
        environment = {name: value for name, value in os.environ.items() if name not in away} | home
        command = [sys.executable, "-B", "-m", "fmaml", "run", *words]
        ran = subprocess.run(command, cwd=place / "work", env=environment, capture_output=True, text=True, check=False)
    else:
        ran = children.command("run", *words, cwd=place / "work", environment={**dict.fromkeys(away), **home})
    return f"{ran.returncode}\n{ran.stdout}{ran.stderr}"


def tree(place: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that is there, with the times of the last change, of folders too."""
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in [place, *place.rglob("*")]
    }


def test_a_dry_run_writes_nothing_cold_or_warm(place):
    words = ["omniglot", *SETTINGS, f"data.root={place / 'photos'}", "data.fractions=[0.4,0.4,0.2]"]
    before = tree(place)
    said = run(place, *words, "--dry-run", "--out", "there", imports=True)
    assert said.startswith("0\n"), said
    assert "nothing was trained" in said
    assert tree(place) == before
    kept = run(place, *words, "train.meta_steps=1", "train.meta_batch=1", "eval.tasks=1", "train.validate_tasks=1")
    assert kept.startswith("0\n"), kept
    after = tree(place)
    names = {Path(path).suffix for path in after.keys() - before.keys() if "/home/" in path}
    assert {".safetensors", ".json"} <= names  # the images and the split are kept by a run
    assert run(place, *words, "--dry-run").startswith("0\n")
    assert tree(place) == after


def test_a_dry_run_downloads_nothing(place):
    before = tree(place)
    said = run(place, "omniglot", "--dry-run")
    assert said.startswith("2\n")
    assert "no Omniglot on this computer, and a dry run downloads nothing; remove --dry-run, or name the folder" in said
    assert tree(place) == before
