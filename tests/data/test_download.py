"""Downloads from a server of our own that can misbehave."""

import contextlib
import hashlib
import http.server
import os
import threading
import time

import pytest

from fmaml.data.files import download as module
from fmaml.data.files.download import download
from fmaml.errors import UserError

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT. ``faults`` holds what to do wrong, one entry a request; then all goes well."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults = []
        self.asked = []  # the Range header of every request
        self.ranges = True
        self.content = CONTENT
        self.closing = threading.Event()  # ends what has no end

    def shutdown(self):
        self.closing.set()
        super().shutdown()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/file.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        self.server.asked.append(asked := self.headers.get("Range"))
        fault = self.server.faults.pop(0) if self.server.faults else None
        content = self.server.content
        start = int(asked[len("bytes=") : -1]) if asked and self.server.ranges else 0
        if fault == "missing":
            return self.send_error(404)
        if start and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "text/html" if fault == "page" else "application/zip")
        if fault not in ("no length", "endless"):
            lengths = {"no number": "abc", "huge": str(10**12), None: str(len(content) - start)}
            self.send_header("Content-Length", lengths.get(fault, lengths[None]))
        self.end_headers()
        if fault == "endless":
            return self.send_without_end(content, 0)
        if fault == "trickle":
            return self.send_without_end(content[start : start + 1], 0.02)
        end = start + 150_000 if fault == "break" else start if fault == "nothing" else len(content)
        self.wfile.write(content[start:end])

    def send_without_end(self, piece, pause):
        """One piece after the other, until the client has gone; 250 at most, so that a test of it ends as well."""
        with contextlib.suppress(OSError):
            for _ in range(250):
                self.wfile.write(piece)
                if self.server.closing.wait(pause):
                    break


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "file.zip"


def fetch(server, path, md5=MD5, **more):
    download(server.url, path, md5, cure="do without", **more)


def part(path):
    return path.with_name("file.zip.part")


def test_a_download_is_whole_and_leaves_no_part(server, path, capsys):
    seen = []
    fetch(server, path, progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert not part(path).exists()
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert capsys.readouterr().err == f"fmaml: downloading {server.url} to {path}\n"


def test_what_is_there_is_not_asked_for(server, path):
    fetch(server, path)
    fetch(server, path)
    assert server.asked == [None]


def test_a_broken_connection_is_taken_up_where_it_broke(server, path):
    server.faults = ["break", "break"]
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=150000-", "bytes=300000-"]


def test_another_run_goes_on_where_the_last_one_stopped(server, path):
    server.faults = ["break"] + ["nothing"] * (module._MAX_ATTEMPTS - 1)
    with pytest.raises(UserError, match=r"150000 of 512000 bytes.*run again to resume, or do without"):
        fetch(server, path)
    assert part(path).read_bytes() == CONTENT[:150_000]
    assert not path.exists()
    server.asked.clear()
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=150000-"]


def test_a_server_without_ranges_sends_all_again(server, path):
    server.ranges = False
    server.faults = ["break"]
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=150000-"]


def test_a_part_that_was_complete_only_needs_its_name(server, path):
    path.parent.mkdir()
    part(path).write_bytes(CONTENT)
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("old", [b"x" * 1000, b"x" * 600_000])
def test_a_part_of_another_file_is_thrown_away_once(server, path, old):
    path.parent.mkdir()
    part(path).write_bytes(old)
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(old)}-", None]


def test_another_file_than_the_published_one_is_refused(server, path):
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(UserError, match=rf"file\.zip: the file received has md5 \w+, the published one {MD5}.*; do wi"):
        fetch(server, path)
    assert os.listdir(path.parent) == []


def test_a_short_file_of_unknown_length_is_refused(server, path):
    server.content = CONTENT[:1000]
    server.faults = ["no length"]
    with pytest.raises(UserError, match="md5"):
        fetch(server, path)
    assert not path.exists()


def test_a_web_page_is_refused(server, path):
    server.faults = ["page"]
    with pytest.raises(UserError, match="a web page instead of the file; do without"):
        fetch(server, path)
    assert os.listdir(path.parent) == []


def test_a_web_page_does_not_spoil_what_was_there(server, path):
    path.parent.mkdir()
    part(path).write_bytes(CONTENT[:1000])
    server.faults = ["page"]
    with pytest.raises(UserError, match="web page"):
        fetch(server, path)
    assert part(path).read_bytes() == CONTENT[:1000]


def test_a_missing_file_is_asked_for_once(server, path):
    server.faults = ["missing"] * module._MAX_ATTEMPTS
    with pytest.raises(UserError, match=r"file\.zip.*Not Found.*or do without"):
        fetch(server, path)
    assert len(server.asked) == 1


def test_no_network(server, path):
    url = "http://127.0.0.1:9/file.zip"  # the discard port: nobody listens
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9/file\.zip: cannot download .*refused.*or do without"):
        download(url, path, MD5, cure="do without")


def test_a_server_that_stalls(server, path, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT", 0.1)
    monkeypatch.setattr(module, "_MAX_ATTEMPTS", 2)
    wait = threading.Event()
    monkeypatch.setattr(Handler, "do_GET", lambda self: wait.wait(2))
    with pytest.raises(UserError, match=r"timed out.*run again"):
        fetch(server, path)
    wait.set()


def within(seconds, server, path):
    """The message of a download that must be given up in time."""
    begun = time.monotonic()
    with pytest.raises(UserError) as refused:
        fetch(server, path)
    assert time.monotonic() - begun < seconds
    return str(refused.value)


def test_a_byte_now_and_then_counts_as_a_broken_connection(server, path, monkeypatch):
    monkeypatch.setattr(module, "_PACE_SECONDS", 0.2)
    server.faults = ["trickle"] * module._MAX_ATTEMPTS
    message = within(10, server, path)
    assert "fewer than 1000 bytes a second" in message
    assert "run again to resume, or do without" in message
    assert len(server.asked) == module._MAX_ATTEMPTS
    assert CONTENT.startswith(part(path).read_bytes()[:1])
    assert 1 < part(path).stat().st_size < 1000, "what came is kept"


def test_a_slow_start_costs_one_connection(server, path, monkeypatch):
    monkeypatch.setattr(module, "_PACE_SECONDS", 0.2)
    server.content = bytes(len(CONTENT))  # the same byte throughout, so that what trickled fits
    server.faults = ["trickle"]
    fetch(server, path, hashlib.md5(server.content).hexdigest())
    assert path.read_bytes() == server.content
    assert len(server.asked) == 2


def test_headers_that_trickle_count_as_a_broken_connection(server, path, monkeypatch):
    """Each byte comes in time, and the headers never end."""
    monkeypatch.setattr(module, "_HEADER_SECONDS", 0.2)
    monkeypatch.setattr(module, "_MAX_ATTEMPTS", 2)
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.send_without_end(b"X", 0.02))
    assert "timed out" in within(10, server, path)


def test_a_download_ends_when_its_time_is_up(server, path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_SECONDS", 0.3)
    monkeypatch.setattr(module, "_SLOWEST", 1)
    server.faults = ["trickle"] * module._MAX_ATTEMPTS
    message = within(10, server, path)
    assert "not complete after 0.3 s" in message
    assert "run again to resume" in message
    assert len(server.asked) == 1
    assert part(path).exists()


@pytest.mark.parametrize("fault", ["endless", "huge"])
def test_more_than_any_data_set_has_is_refused_and_deleted(server, path, monkeypatch, fault):
    monkeypatch.setattr(module, "_MAX_BYTES", 2_000_000)
    server.faults = [fault]
    assert within(10, server, path).endswith("the server sends more than 2000000 bytes; do without")
    assert os.listdir(path.parent) == []
    assert len(server.asked) == 1


def test_a_length_that_is_no_number_leaves_it_to_the_checksum(server, path):
    server.faults = ["no number"]
    fetch(server, path)
    assert path.read_bytes() == CONTENT


def test_a_part_that_is_a_pipe_or_too_large_is_thrown_away(server, path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_BYTES", 2_000_000)
    path.parent.mkdir()
    for spoil in (os.mkfifo, lambda part: part.touch() or os.truncate(part, 100 * 10**9)):
        spoil(part(path))
        fetch(server, path)
        assert path.read_bytes() == CONTENT
        assert server.asked.pop() is None
        path.unlink()


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot download .*file\.zip"):
        fetch(server, tmp_path / "file" / "folder" / "file.zip")


def test_of_two_at_once_one_fetches(server, path):
    threads = [threading.Thread(target=fetch, args=(server, path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == [None]
    assert path.read_bytes() == CONTENT
