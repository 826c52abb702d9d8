"""Downloads from a server of our own that can misbehave."""

import contextlib
import gc
import gzip
import hashlib
import http.server
import os
import re
import threading
import time

import pytest
from rich.console import Console

from fmaml.data.files import download as module
from fmaml.data.files.download import download
from fmaml.errors import Error

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes
ZEROS = bytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT. ``faults`` holds what to do wrong, one entry a request; then all goes well."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults = []
        self.asked = 0  # requests
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
        self.server.asked += 1
        fault = self.server.faults.pop(0) if self.server.faults else None
        if fault == "missing":
            return self.send_error(404)
        if fault and fault.startswith("to "):
            self.send_response(302)
            self.send_header("Location", fault.removeprefix("to ") or self.path)
            self.end_headers()
            return None
        content = gzip.compress(ZEROS) if fault == "packed" else self.server.content
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if fault == "page" else "application/zip")
        if fault == "packed":
            self.send_header("Content-Encoding", "gzip")
        if fault not in ("no length", "endless"):
            lie = {"no number": "abc", "huge": str(10**12)}.get(fault or "")
            self.send_header("Content-Length", lie or str(len(content)))
        self.end_headers()
        if fault == "endless":
            return self.send_without_end(content, 0)
        if fault == "trickle":
            return self.send_without_end(content[:1], 0.02)
        self.wfile.write(content[: 150_000 if fault == "break" else len(content)])

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


def fetch(server, path, md5=MD5):
    download(server.url, path, md5, cure="do without")


def refusal(server, path):
    """The message of a download that fails, and leaves nothing behind."""
    with pytest.raises(Error) as refused:
        fetch(server, path)
    assert os.listdir(path.parent) == []
    message = str(refused.value)
    assert message.startswith(f"{server.url}: cannot download {path} (")
    assert message.endswith("); run again, or do without")
    assert "\n" not in message
    return message


def test_a_download_is_whole_and_leaves_nothing_else(server, path, capsys):
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["file.zip"]
    assert path.stat().st_mode & 0o777 == path.parent.stat().st_mode & 0o666, (
        "others may read it as they may the folder"
    )
    assert capsys.readouterr().err == f"fmaml: downloading {server.url} to {path}\n"


def test_what_is_there_is_not_asked_for(server, path):
    fetch(server, path)
    fetch(server, path)
    assert server.asked == 1


def test_a_download_shows_its_progress_in_a_terminal(server, path, monkeypatch, capsys):
    monkeypatch.setattr(module, "CleanConsole", lambda stderr: Console(stderr=True, force_terminal=True, width=80))
    fetch(server, path)
    assert "512.0 kB" in capsys.readouterr().err


def test_after_a_broken_connection_the_next_run_fetches_it_whole(server, path):
    server.faults = ["break"]
    assert "150000 bytes read, 362000 more expected" in refusal(server, path)
    fetch(server, path)
    assert path.read_bytes() == CONTENT


def test_another_file_than_the_published_one_is_refused(server, path):
    server.content = CONTENT[:-1] + b"x"
    other = hashlib.md5(server.content).hexdigest()
    assert re.search(rf"(?i)md5 .*does not match.*expected md5:{MD5} but got {other}", refusal(server, path))


def test_a_short_file_of_unknown_length_is_refused(server, path):
    server.content = CONTENT[:1000]
    server.faults = ["no length"]
    assert "does not match" in refusal(server, path)


def test_a_web_page_is_refused(server, path):
    server.faults = ["page"]
    assert "the server sent a web page instead of the file" in refusal(server, path)


def test_a_missing_file_is_asked_for_once(server, path):
    server.faults = ["missing"] * 2
    assert "404" in refusal(server, path)
    assert server.asked == 1


NONSENSE = ["http://[", "ftp://x/", "gopher:x", "http://a b/", f"http://{'a' * 70}.invalid/", "http://%zz/"]
NONSENSE += ["http://127.0.0.1:99999/", "http://127.0.0.1:x/", "http://.../", "http://\x1b[31m/", "file:///etc/passwd"]
NONSENSE += ["http://*/", "http://xn--/", "http://user@:80/", "http://\xff/", "http://[::1", "http://127.0.0.1:9/\t"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # requests leaves a socket open
@pytest.mark.parametrize("to", NONSENSE)
def test_a_redirect_to_nonsense_is_one_line(server, path, to):
    server.faults = [f"to {to}"] * 2
    message = refusal(server, path)
    assert message.isprintable()
    assert "cannot download" in message
    gc.collect()  # so that an open socket is found here


def test_any_error_of_the_libraries_is_a_line(server, path, monkeypatch):
    def fail(*_):
        raise RuntimeError("one\ntwo\nthree")

    monkeypatch.setattr(module._Transfer, "copy", fail)
    assert "(one two three)" in refusal(server, path)


def test_a_server_that_redirects_in_a_circle(server, path):
    server.faults = ["to "] * 100
    assert "Exceeded 30 redirects" in refusal(server, path)


def test_a_status_line_with_escape_sequences(server, path, monkeypatch):
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.send_error(404, "no\x1b[31m\x07 such\x9b31m file"))
    message = refusal(server, path)
    assert message.isprintable()
    assert "such" in message


def test_no_network(path):
    url = "http://127.0.0.1:9/file.zip"  # the discard port: nobody listens
    with pytest.raises(Error, match=r"127\.0\.0\.1:9/file\.zip: cannot download .*\(.*refused\); run again, or do wi"):
        download(url, path, MD5, cure="do without")


def test_a_server_that_stalls(server, path, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT", 0.1)
    wait = threading.Event()
    monkeypatch.setattr(Handler, "do_GET", lambda self: wait.wait(2))
    assert "timed out" in refusal(server, path)
    wait.set()


def refused_within(seconds, server, path):
    begun = time.monotonic()
    message = refusal(server, path)
    assert time.monotonic() - begun < seconds
    return message


def test_a_byte_now_and_then_is_given_up(server, path, monkeypatch):
    monkeypatch.setattr(module, "_PACE_SECONDS", 0.2)
    monkeypatch.setattr(module, "_PIECE", 1)
    server.faults = ["trickle"]
    assert "fewer than 1000 bytes a second" in refused_within(4, server, path)
    assert server.asked == 1


def test_headers_that_trickle_are_given_up(server, path, monkeypatch):
    """Each byte comes in time, and the headers never end."""
    monkeypatch.setattr(module, "_PACE_SECONDS", 0.2)
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.send_without_end(b"X", 0.02))
    assert "fewer than 1000 bytes a second" in refused_within(4, server, path)


def test_a_download_ends_when_its_time_is_up(server, path, monkeypatch):
    monkeypatch.setattr(module, "_PACE_SECONDS", 0.2)
    monkeypatch.setattr(module, "_MAX_SECONDS", 0.3)
    monkeypatch.setattr(module, "_SLOWEST", 1)
    monkeypatch.setattr(module, "_PIECE", 1)
    server.faults = ["trickle"]
    assert "not complete after 0.3 s" in refused_within(4, server, path)


@pytest.mark.parametrize("fault", ["endless", "packed"])
def test_more_than_any_data_set_has_is_refused_and_deleted(server, path, monkeypatch, fault):
    """What is delivered counts, unpacked: the headers of the one say nothing, of the other 3,000 bytes."""
    monkeypatch.setattr(module, "_MAX_BYTES", 2_000_000)
    server.faults = [fault]
    assert "the server sends more than 2000000 bytes" in refused_within(10, server, path)


def test_a_length_that_is_a_lie_is_one_line(server, path):
    server.faults = ["huge"]
    assert f"512000 bytes read, {10**12 - 512_000} more expected" in refused_within(10, server, path)


def test_a_length_that_is_no_number_leaves_it_to_the_checksum(server, path):
    server.faults = ["no number"]
    fetch(server, path)
    assert path.read_bytes() == CONTENT


def test_what_a_killed_download_left_is_deleted(server, path):
    path.parent.mkdir()
    (path.parent / "tmpab_0cdef").write_bytes(CONTENT[:1000])  # pooch's temporary file
    (path.parent / "tmp").write_bytes(b"of somebody else")
    fetch(server, path)
    assert sorted(os.listdir(path.parent)) == ["file.zip", "tmp"]


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Error, match=r"cannot download .*file\.zip"):
        fetch(server, tmp_path / "file" / "folder" / "file.zip")


def test_of_four_at_once_one_fetches(server, path):
    threads = [threading.Thread(target=fetch, args=(server, path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == 1
    assert path.read_bytes() == CONTENT
