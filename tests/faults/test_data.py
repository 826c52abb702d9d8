"""Data that two processes fetch or prepare at once, or that a kill cut short, is fetched or made once and whole."""

import hashlib
import http.server
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pooch  # noqa: F401  # here and not in each child, so that kills hit the download
import pytest
import requests  # noqa: F401
import torch
from harness import PATIENCE, fork, has_ended, litter, wait, wait_for

from fmaml.data.files.cache import cached
from fmaml.data.files.download import download

TENSOR = torch.arange(300_000, dtype=torch.int64).view(300, 1000)


def prepare(path: Path, log: Path, seconds: float = 0.0) -> int:
    """In a child: 0 if the tensor came out right; a line in the log if it had to be made."""

    def make() -> torch.Tensor:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(seconds)
        return TENSOR

    return 0 if torch.equal(cached(path, make), TENSOR) else 1


@pytest.mark.parametrize("trials", [4, pytest.param(10, marks=pytest.mark.slow)])
def test_two_processes_make_it_once(tmp_path, trials):
    draw = random.Random(0)
    for trial in range(trials):
        path, log = tmp_path / str(trial) / "some.safetensors", tmp_path / f"{trial}.log"
        children = []
        for _ in range(2):
            children.append(fork(lambda path=path, log=log: prepare(path, log, 0.1)))
            time.sleep(draw.uniform(0, 0.1))
        assert [wait(child) for child in children] == [0, 0]
        assert len(log.read_text().splitlines()) == 1


@pytest.mark.parametrize("kills", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_a_kill_while_it_is_made_or_kept_leaves_nothing_that_is_taken_for_it(tmp_path, kills):
    draw = random.Random(0)
    kept = tmp_path / "some.safetensors"
    killed = 0
    while killed < kills:  # those that were done before they were killed do not count
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


# Downloads

CONTENT = random.Random(0).randbytes(600_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
PIECE, PAUSE = 20_000, 0.001  # bytes and seconds: a download takes some 30 ms, so that kills hit its middle


class Sender(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(int(self.path.strip("/")))
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        for at in range(0, len(CONTENT), PIECE):
            self.wfile.write(CONTENT[at : at + PIECE])
            self.server.going.wait(PATIENCE)
            time.sleep(PAUSE)


class Server(http.server.ThreadingHTTPServer):
    """Sends CONTENT, a piece at a time."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Sender)
        self.asked: list[int] = []  # the process of each request
        self.going = threading.Event()  # cleared: it waits after the next piece
        self.going.set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked was killed."""

    def fetch(self, path: Path) -> int:
        """In a child: 0 if the file is there and right."""
        download(f"http://127.0.0.1:{self.server_address[1]}/{os.getpid()}", path, MD5, cure="do without")
        return 0 if path.read_bytes() == CONTENT else 1


def holds_a_part(folder: Path) -> bool:
    """Whether a file in the folder has a byte."""
    try:
        return any(file.stat().st_size > 0 for file in folder.iterdir())
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("kills", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_of_a_download_leaves_nothing_that_is_taken_for_it(tmp_path, server, kills):
    draw, killed, cut_short = random.Random(kills), 0, 0
    path = tmp_path / "file.zip"
    while killed < kills:  # those that were done before they were killed do not count
        child = fork(lambda: server.fetch(path))
        if draw.random() < 0.5:  # a part is there
            wait_for(lambda child=child: has_ended(child) or holds_a_part(path.parent))
        time.sleep(draw.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        ended = wait(child)
        assert ended in (0, -signal.SIGKILL)
        killed += ended != 0
        if path.exists():
            assert path.read_bytes() == CONTENT, "a part was taken for the whole"
            path.unlink()
        cut_short += any(file.stat().st_size for file in tmp_path.iterdir())
        if draw.random() < 0.5:  # else the next one is killed as well
            assert wait(fork(lambda: server.fetch(path))) == 0
            assert os.listdir(tmp_path) == ["file.zip"]
            path.unlink()
    assert cut_short >= kills / 8


@pytest.mark.parametrize("trials", [4, pytest.param(10, marks=pytest.mark.slow)])
def test_two_processes_download_it_once(tmp_path, server, trials):
    draw = random.Random(0)
    for trial in range(trials):
        path = tmp_path / str(trial) / "file.zip"
        server.asked.clear()
        children = []
        for _ in range(2):
            children.append(fork(lambda path=path: server.fetch(path)))
            time.sleep(draw.uniform(0, 0.03))
        assert [wait(child) for child in children] == [0, 0]
        assert len(server.asked) == 1
        assert os.listdir(path.parent) == ["file.zip"]


def test_who_waited_downloads_it_when_the_other_is_killed(tmp_path, server):
    draw = random.Random(0)
    for trial in range(10):
        path = tmp_path / str(trial) / "file.zip"
        server.asked.clear()
        server.going.clear()
        first = fork(lambda path=path: server.fetch(path))
        wait_for(lambda path=path: holds_a_part(path.parent))
        second = fork(lambda path=path: server.fetch(path))
        time.sleep(draw.uniform(0, 0.05))
        assert server.asked == [first]
        os.kill(first, signal.SIGKILL)
        server.going.set()
        assert [wait(first), wait(second)] == [-signal.SIGKILL, 0]
        assert server.asked == [first, second]
        assert os.listdir(path.parent) == ["file.zip"]
