"""Data that two processes prepare at once, or that a kill cut short, is made once and whole."""

import os
import random
import signal
import time
from pathlib import Path

import torch
from harness import fork, litter, wait

from fmaml.data.cache import cached

TENSOR = torch.arange(300_000, dtype=torch.int64).view(300, 1000)


def prepare(path: Path, log: Path, seconds: float = 0.0) -> int:
    """In a child: 0 if the tensor came out right; a line in the log if it had to be made."""

    def make() -> torch.Tensor:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(seconds)
        return TENSOR

    return 0 if torch.equal(cached(path, make), TENSOR) else 1


def test_two_processes_make_it_once(tmp_path):
    draw = random.Random(0)
    for trial in range(10):
        path, log = tmp_path / str(trial) / "some.safetensors", tmp_path / f"{trial}.log"
        children = []
        for _ in range(2):
            children.append(fork(lambda path=path, log=log: prepare(path, log, 0.1)))
            time.sleep(draw.uniform(0, 0.1))
        assert [wait(child) for child in children] == [0, 0]
        assert len(log.read_text().splitlines()) == 1


def test_a_kill_while_it_is_made_or_kept_leaves_nothing_that_is_taken_for_it(tmp_path):
    draw = random.Random(0)
    kept = tmp_path / "some.safetensors"
    killed = 0
    while killed < 50:  # those that were done before they were killed do not count
        child = fork(lambda: prepare(kept, tmp_path / "log"))
        time.sleep(draw.uniform(0, 0.015))
        os.kill(child, signal.SIGKILL)
        killed += wait(child) == -signal.SIGKILL
        assert wait(fork(lambda: prepare(kept, tmp_path / "log"))) == 0
        assert not litter(tmp_path)
        kept.unlink()


def test_a_cached_file_cut_short_or_flipped_is_made_again(tmp_path):
    draw, path, log = random.Random(0), tmp_path / "some.safetensors", tmp_path / "log"
    assert prepare(path, log) == 0
    whole = path.read_bytes()
    for trial in range(30):
        at = draw.randrange(len(whole))
        path.write_bytes(whole[:at] if trial % 2 else whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :])
        assert prepare(path, log) == 0
        assert path.read_bytes() == whole
    assert len(log.read_text().splitlines()) == 31
