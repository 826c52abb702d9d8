"""What is published: the sdist holds what its tests read, and the wheel made of it is the checkout's own."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

pytest.importorskip("build", reason="builds the package: pip install -e '.[dev]'")
if int(metadata.version("setuptools").partition(".")[0]) < 77:
    pytest.skip("builds with setuptools 77 or newer: pip install -e '.[dev]'", allow_module_level=True)

TOP = Path(__file__).parent.parent
ROOMS = (".ci", ".github", "benchmarks", "docs", "examples", "experiments", "fmaml", "tests")
FILES = (
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "README.md"),
    *("pyproject.toml", "setup.cfg", ".gitignore"),
)


def built(what: str, folder: Path, out: Path) -> Path:
    """The sdist or the wheel of the sources in a folder, by the setuptools that is installed."""
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{what}", "--outdir", str(out), str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (path,) = out.iterdir()
    return path


def files(folder: Path) -> set[str]:
    """The files below the rooms and at the top, links followed; what Python leaves behind is no file of ours."""
    found = {name for name in FILES if (folder / name).exists()}
    for room in ROOMS:
        for place, _, names in os.walk(folder / room, followlinks=True):
            within = Path(place).relative_to(folder)
            found |= {(within / name).as_posix() for name in names if within.name != "__pycache__"}
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the checkout, so that nothing of an earlier build is in it, and nothing of ours stays."""
    copy = tmp_path_factory.mktemp("packaging") / "checkout"
    for room in ROOMS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(TOP / room, copy / room, symlinks=True, ignore=ignored)
    for name in FILES:
        shutil.copy(TOP / name, copy)
    return copy


@pytest.fixture(scope="module")
def unpacked(checkout) -> Path:
    """The sdist of the checkout, unpacked elsewhere."""
    folder = checkout.parent / "unpacked"
    with tarfile.open(built("sdist", checkout, checkout.parent / "sdist")) as archive:
        archive.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    return top


@pytest.fixture(scope="module")
def wheels(checkout, unpacked) -> list[zipfile.ZipFile]:
    """That of the checkout, and that of the sdist."""
    made = [
        built("wheel", folder, checkout.parent / f"wheel_of_{folder.parent.name}") for folder in (checkout, unpacked)
    ]
    return [zipfile.ZipFile(path) for path in made]


def test_the_sdist_holds_every_file_of_the_checkout(unpacked, checkout):
    assert files(unpacked) == files(checkout)
    assert set(FILES) <= files(unpacked)


SAMPLE = [
    *("tests/test_api.py", "tests/test_readme.py", "tests/config/test_experiments.py", "-k"),
    "documents or map_in_contributing or links or tables_of_algorithms or experiments_at_the_top",
]


@pytest.mark.parametrize("words", [SAMPLE, pytest.param(["--collect-only"], marks=pytest.mark.slow)])
def test_the_tests_of_the_sdist_begin_to_run(unpacked, words):
    """All that a sample of them imports and reads is there; when all are collected, all that they import."""
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    ran = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr


def test_the_wheel_of_the_sdist_is_that_of_the_checkout(wheels):
    ours, theirs = ({name: wheel.read(name) for name in wheel.namelist()} for wheel in wheels)
    assert set(ours) == set(theirs)
    differing = {name for name in ours if ours[name] != theirs[name]}
    assert not differing


def test_the_wheel_holds_the_package_alone(wheels, checkout):
    installed = {name for name in wheels[0].namelist() if ".dist-info/" not in name}
    sources = {name for name in files(checkout) if name.startswith("fmaml/")}
    assert installed == sources


def test_the_metadata_name_the_licence_and_the_tested_pythons(wheels):
    about = email.message_from_bytes(wheels[0].read(next(n for n in wheels[0].namelist() if n.endswith("/METADATA"))))
    assert about["License-Expression"] == "MIT"
    assert about["License-File"] == "LICENSE"
    workflow = (TOP / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    pythons = [name.split(" :: ")[-1] for name in about.get_all("Classifier", []) if "Python :: 3." in name]
    assert pythons == re.findall(r'"(3\.\d+)"', workflow), "a version is promised and tested, or neither"
