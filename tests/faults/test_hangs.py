"""What would never end, or take all memory, is named, and does not stop what can go on without it."""

import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import bare, fingerprint, finish, fork, run, uninterrupted, wait
from PIL import Image

from fmaml.checkpoints.checkpoint_store import checkpoint_files
from fmaml.cli.main import main
from fmaml.config.load import load_config
from fmaml.data.files.cache import cached
from fmaml.data.files.pickles import read_pickle
from fmaml.data.images.cifar100_files import CIFAR100_ARCHIVE, read_cifar100_files
from fmaml.data.images.omniglot_files import read_drawings
from fmaml.data.sources.image_folder import folder
from fmaml.data.sources.mini_imagenet import list_table
from fmaml.data.sources.udhr import read_udhr_files
from fmaml.errors import Error

LIMIT = 20  # seconds of a processor that a child may use; it would go on for ever
HUGE = 100 * 10**9  # bytes of a file that takes up none of the disk


def replace_by_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def replace_by_device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def extend(path: Path) -> None:
    path.touch()
    os.truncate(path, HUGE)


def empty_and_extend(path: Path) -> None:
    path.write_bytes(b"")
    extend(path)


FAULTS = {"pipe": replace_by_pipe, "device": replace_by_device, "extended": extend, "sparse": empty_and_extend}


# The files of a run


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run with its checkpoints of the steps 40 and 39."""
    out = tmp_path_factory.mktemp("stopped") / "out"
    assert finish(out) == 0
    return out


@pytest.fixture
def out(stopped, tmp_path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "out"))


def within_memory(work: Callable[[], Any]) -> Any:
    """The result of ``work``, which may not take more than 1 GB of memory beside what the process has."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 4 * 10**9, resource.RLIM_INFINITY))  # spares the machine
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = work()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10**6  # KiB on Linux
    return code


def resume(out: Path, said: Path) -> int:
    """`fmaml resume` in a child: its exit code."""

    def work() -> int:
        bare(None)
        return within_memory(lambda: main(["resume", str(out)]))

    return wait(fork(work, None, said), LIMIT)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_never_ends_is_named_and_the_one_before_it_used(out, tmp_path, fault):
    newest, before = checkpoint_files(out / "checkpoints")
    FAULTS[fault](newest)
    assert resume(out, tmp_path / "said") == 0, (tmp_path / "said").read_text()
    said = (tmp_path / "said").read_text()
    reason = "not a regular file" if fault in ("pipe", "device") else "it has more than "
    assert f"{newest}: damaged ({reason}" in said
    assert f"continuing from {before}" in said
    assert fingerprint(out) == uninterrupted()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_log_that_never_ends_is_named(out, tmp_path, fault):
    FAULTS[fault](out / "metrics.jsonl")
    assert resume(out, tmp_path / "said") == 1
    (line,) = (line for line in (tmp_path / "said").read_text().splitlines() if "metrics.jsonl" in line)
    assert "not a regular file" in line or "it has more than " in line
    assert f"fix the cause, then `fmaml resume {out}`" in line


def test_the_record_of_the_device_is_not_waited_for(out, tmp_path):
    replace_by_pipe(out / "environment.json")
    assert resume(out, tmp_path / "said") == 0, (tmp_path / "said").read_text()
    assert fingerprint(out) == uninterrupted()


def test_a_checkpoint_of_a_larger_network_is_told_by_its_settings(tmp_path):
    """The limit of its size must not hide what is wrong."""
    assert finish(tmp_path / "out", "model.hidden=[500, 500]", "train.meta_steps=1") == 0
    smaller = ["model.hidden=[8]", "train.meta_steps=1"]
    assert wait(fork(lambda: run(tmp_path / "out", *smaller), None, tmp_path / "said")) == 2
    assert "model.hidden: saved with [500, 500], given [8]" in (tmp_path / "said").read_text()


# Experiments and data


def told(work: Callable[[], object], said: Path) -> str:
    """The one line, after notes, that ``work`` ends with in a child."""

    def child() -> int:
        within_memory(work)
        return 0

    assert wait(fork(child, None, said), LIMIT) == 2, said.read_text()
    *notes, line = said.read_text().splitlines()
    assert all(note.startswith("fmaml: ") for note in notes)
    return line


@pytest.mark.parametrize("fault", FAULTS)
def test_an_experiment_that_never_ends_is_named(tmp_path, fault):
    FAULTS[fault](path := tmp_path / "mine.yaml")
    line = told(lambda: load_config(str(path)), tmp_path / "said")
    assert line.startswith(f"{path}: ")
    assert "give a YAML file" in line or "an experiment is a short YAML file" in line


def test_an_experiment_is_still_read_from_a_pipe_that_is_open(tmp_path):
    """Such as that of `fmaml run <(...)`."""
    read, write = os.pipe()
    os.write(write, b"data: {name: sinusoid}\n")
    os.close(write)
    with pytest.raises(Error, match=r"model\.name: missing"):
        load_config(f"/dev/fd/{read}")
    os.close(read)


def put_images(root: Path) -> None:
    """Three classes of three images each."""
    for name in ("a", "b", "c"):
        (root / name).mkdir(parents=True)
        for i in range(3):
            Image.new("L", (8, 8), 40 * i).save(root / name / f"{i}.png")


@pytest.mark.parametrize("fault", FAULTS)
def test_an_image_that_never_ends_is_named_or_left_out(tmp_path, monkeypatch, fault):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    put_images(root := tmp_path / "images")
    FAULTS[fault](bad := root / "b" / "1.png")
    settings = {"root": str(root), "size": 8, "channels": 1, "ways": 1, "shots": 1, "queries": 1}

    def read(strict: bool):
        return folder(seed=0, device=torch.device("cpu"), strict=strict, **settings)

    reason = "not a regular file" if fault in ("pipe", "device") else "it has more than "
    assert f"1 unreadable image: {bad} ({reason}" in told(lambda: read(True), tmp_path / "said")

    def lenient() -> int:
        return within_memory(lambda: read(False).about["unreadable"] - 1)

    assert wait(fork(lenient, None, tmp_path / "lenient"), LIMIT) == 0, (tmp_path / "lenient").read_text()


def test_the_stored_split_of_a_folder_of_images(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    put_images(root := tmp_path / "images")
    settings = {"root": str(root), "size": 8, "channels": 1, "ways": 1, "shots": 1, "queries": 1}
    folder(seed=0, device=torch.device("cpu"), **settings)
    (split,) = (tmp_path / "cache/fmaml/splits").iterdir()
    replace_by_pipe(split)
    line = told(lambda: folder(seed=0, device=torch.device("cpu"), **settings), tmp_path / "said")
    assert line.startswith(f"{split}: not a readable split (not a regular file")


READERS: dict[str, Callable[[Path], object]] = {  # of a file by this name
    "train.csv": lambda path: list_table(path, path.parent),
    "some.pkl": read_pickle,
    CIFAR100_ARCHIVE: read_cifar100_files,
    "cifar-100-python/train": lambda path: read_cifar100_files(path.parent),
    "udhr2/por_BR.txt": lambda path: read_udhr_files(path.parent, ["por_BR"]),
    "images_background.zip": lambda path: read_drawings([path], []),
    "images_background/Greek/character01/01.png": lambda path: read_drawings(
        [path.parents[2]], ["images_background/Greek/character01"]
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", READERS)
def test_a_file_of_a_data_set_that_never_ends_is_named(tmp_path, name, fault):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for i in range(20):  # Omniglot's characters have so many drawings
        Image.new("1", (105, 105), 1).save(path.with_name(f"{i:02}.png"))
    FAULTS[fault](path)
    line = told(lambda: READERS[name](path), tmp_path / "said")
    assert str(path.relative_to(tmp_path)).split("/")[0] in line
    assert "not a regular file" in line or "it has more than " in line


def test_a_cached_file_that_is_a_pipe_is_made_again(tmp_path):
    replace_by_pipe(path := tmp_path / "some.safetensors")
    tensor = torch.arange(5)

    def work() -> int:
        return 0 if torch.equal(cached(path, lambda: tensor), tensor) else 1

    assert wait(fork(work), LIMIT) == 0
    assert path.is_file()
