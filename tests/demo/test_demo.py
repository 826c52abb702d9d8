"""The demo over HTTP: what its models answer, and whom its server refuses."""

import base64
import contextlib
import http.client
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from demo_server import DRAWINGS, PHOTOGRAPHS, serving, untrained_classifiers, write_untrained
from PIL import Image, ImageDraw

import fmaml
from fmaml.cli.main import main
from fmaml.data.images.decode import decode_image
from fmaml.demo import classifier
from fmaml.demo.classifier import Classifier
from fmaml.demo.server import FILES, MAX_BYTES
from fmaml.models.user_images import image_to_pixels

STROKES = [
    [(40, 40), (170, 40), (170, 170)],
    [(105, 20), (105, 190)],
    [(30, 180), (70, 40), (105, 130), (140, 40), (180, 180)],
]
COLOURS = ["red", "green", "blue"]
PATIENCE = 300.0  # seconds for an answer, far more than it takes on a machine that has much else to do


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(untrained_classifiers(tmp_path_factory.mktemp("models"))) as server:
        yield server


@pytest.fixture
def ask(server):
    """Sends a request; returns (status, headers, answer)."""

    def ask(path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=PATIENCE)
        connection.request("GET" if body is None else "POST", path, body, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        is_json = response.headers["Content-Type"] == "application/json"
        return response.status, response.headers, json.loads(content) if is_json else content.decode()

    return ask


def drawing(strokes) -> Image.Image:
    """Ink on transparent paper, as a canvas of the page gives it."""
    image = Image.new("RGBA", (210, 210))
    ImageDraw.Draw(image).line(strokes, fill="black", width=10)
    return image


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def see(ask, tab: str, picture: bytes) -> str:
    status, _, answer = ask(f"/{tab}/pixels", picture)
    assert status == 200
    return answer["pixels"]


def predict(ask, tab: str, classes: list[list[str]], query: str):
    return ask(f"/{tab}/predict", json.dumps({"classes": classes, "query": query}).encode())


def test_a_drawing_is_found_again_after_adaptation_and_not_before(ask):
    pixels = [see(ask, "draw", png(drawing(strokes))) for strokes in STROKES]
    answers = [predict(ask, "draw", [[it] for it in pixels], query) for query in pixels]
    assert [status for status, _, _ in answers] == [200, 200, 200]
    before, after = (np.array([answer[when] for _, _, answer in answers]) for when in ("before", "after"))
    assert after.argmax(1).tolist() == [0, 1, 2]
    assert before.argmax(1).tolist() != [0, 1, 2]
    np.testing.assert_allclose(after.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(before.sum(1), 1, rtol=1e-5)


def test_a_photograph_is_found_again_and_prototypes_have_no_before(ask):
    photos = [see(ask, "photo", png(Image.new("RGB", (60, 40), colour))) for colour in COLOURS]
    status, _, answer = predict(ask, "photo", [[photos[0], photos[0]], [photos[1]], [photos[2]]], photos[1])
    assert (status, answer["before"]) == (200, None)
    assert np.argmax(answer["after"]) == 1


def test_more_classes_than_in_training_have_no_before(ask):
    pixels = [see(ask, "draw", png(drawing([(20, 20 * i), (200, 105)]))) for i in range(10)]
    _, _, answer = predict(ask, "draw", [[it] for it in pixels], pixels[7])
    assert answer["before"] is None
    assert len(answer["after"]) == 10
    assert np.argmax(answer["after"]) == 7


def test_the_answers_are_those_of_the_library(ask, tmp_path):
    drawings = [drawing(strokes) for strokes in STROKES]
    learner = fmaml.load(write_untrained(tmp_path, "maml", DRAWINGS))
    support = {str(i): image for i, image in enumerate(drawings)}
    pixels = [see(ask, "draw", png(image)) for image in drawings]
    _, _, answer = predict(ask, "draw", [[it] for it in pixels], pixels[0])
    for when, steps in (("before", 0), ("after", None)):
        expected = learner.adapt(support, steps=steps).predict(drawings[0]).probabilities[0]
        np.testing.assert_allclose(answer[when], expected, rtol=1e-4)


def test_noise_is_none_of_these_and_a_drawing_is_not():
    classifier = Classifier("omniglot")
    pixels = [classifier.see(png(drawing(strokes))) for strokes in STROKES]
    classes = tuple((it,) for it in pixels)
    again = classifier.answer(classes, pixels[1])
    noise = classifier.answer(classes, np.random.default_rng(0).integers(0, 256, 28 * 28, np.uint8).tobytes())
    assert again.none is not None
    assert noise.none is not None
    assert again.none < 0.01 < 0.99 < noise.none
    assert len(again.after) == 3
    assert sum(again.after) + again.none == pytest.approx(1)


def test_a_model_without_a_limit_has_no_none_of_these(ask):
    pixels = [see(ask, "draw", png(drawing(strokes))) for strokes in STROKES]
    _, _, answer = predict(ask, "draw", [[it] for it in pixels], pixels[0])
    assert answer["none"] is None


@pytest.mark.parametrize(("tab", "form"), [("draw", DRAWINGS), ("photo", PHOTOGRAPHS)])
def test_images_are_decoded_as_predict_does_it(ask, tmp_path, tab, form):
    noise = np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8)
    file = tmp_path / "photo.jpg"
    Image.fromarray(noise).resize((1400, 900)).save(file)
    assert (
        base64.b64decode(see(ask, tab, file.read_bytes()))
        == image_to_pixels(str(file), form._replace(ink="auto"), 0).values.tobytes()
    )


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_file_of_the_page_is_sent_with_its_policy_and_names_no_host(ask, name):
    status, headers, text = ask(name)
    assert status == 200
    assert headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert "://" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")


def test_the_first_page_is_the_index(ask):
    assert ask("/")[2] == FILES["/index.html"].read_text()


@pytest.mark.parametrize("path", ["/nothing", "/../server.py", "/%2e%2e/server.py", "/draw", "/draw/pixels"])
def test_no_other_path_is_there(ask, path):
    assert ask(path)[0] == 404


@pytest.mark.parametrize("path", ["/nothing", "/draw/learn", "/other/pixels", "/models"])
def test_no_other_question_is_answered(ask, path):
    assert ask(path, b"x")[0] == 404


@pytest.mark.parametrize("path", ["/", "/models", "/draw/pixels"])
def test_a_host_of_another_name_is_refused(ask, server, path):
    body = png(drawing(STROKES[0])) if path == "/draw/pixels" else None
    port = server.server_address[1]
    for host in (
        "example.com",
        f"example.com:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port + 1}",
        f"127.0.0.1.nip.io:{port}",
    ):
        status, _, answer = ask(path, body, Host=host)
        assert (status, answer) == (403, {"error": f"Host: must be 127.0.0.1:{port}"})
    assert ask(path, body, Host=f"localhost:{port}")[0] == 200


def test_a_question_from_another_page_is_refused(ask, server):
    port = server.server_address[1]
    picture = png(drawing(STROKES[0]))
    for origin in ("http://example.com", "null", f"https://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"):
        status, _, answer = ask("/draw/pixels", picture, Origin=origin)
        assert (status, answer) == (403, {"error": f"Origin: must be http://127.0.0.1:{port}"})
    for origin in server.origins:
        assert ask("/draw/pixels", picture, Origin=origin)[0] == 200


def test_it_listens_on_the_loopback_address_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(OSError, match="refused"):  # Linux has all of 127/8 on its loopback
        socket.create_connection(("127.0.0.2", server.server_address[1]), timeout=PATIENCE)


def test_what_is_too_large_is_refused_before_it_is_sent(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=PATIENCE)
    connection.putrequest("POST", "/photo/pixels")
    connection.putheader("Content-Length", str(MAX_BYTES + 1))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read()) == {"error": "too large: at most 20 MB"}


def test_a_question_without_a_length_is_refused(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=PATIENCE)
    connection.putrequest("POST", "/photo/pixels")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    assert connection.getresponse().status == 411


def bomb(side: int) -> bytes:
    """A PNG of a few hundred bytes that claims to have side² pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


AN_IMAGE = "an image that can be read; give a PNG, a JPEG or another common format"
TOO_MANY = "has too many pixels to be opened safely; save it smaller (at most 25,000,000; FMAML_MAX_PIXELS)"


@pytest.mark.parametrize(
    ("picture", "why"),
    [
        (b"", f"not {AN_IMAGE}"),
        (b"no image", f"not {AN_IMAGE}"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", f"not {AN_IMAGE}"),
        (bomb(50_000), TOO_MANY),
        (bomb(5_001), TOO_MANY),
    ],
)
def test_what_is_no_image_is_refused_in_a_line(ask, picture, why):
    assert ask("/photo/pixels", picture)[::2] == (400, {"error": why})


def test_two_pictures_are_decoded_at_once_and_the_others_wait(ask, monkeypatch):
    decoding, most, both = 0, 0, threading.Event()

    def decode(*arguments):
        nonlocal decoding, most
        decoding += 1
        most = max(most, decoding)
        if decoding == 2:
            both.set()
        assert both.wait(PATIENCE)
        time.sleep(0.05)  # so that a third would begin meanwhile
        decoding -= 1
        return decode_image(*arguments)

    monkeypatch.setattr(classifier, "decode_image", decode)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: ask("/photo/pixels", png(Image.new("L", (9, 9))))[0], range(6)))
    assert (answers, most) == ([200] * 6, 2)


def test_a_damaged_image_is_refused(ask):
    picture = png(Image.effect_noise((64, 64), 50))
    status, _, answer = ask("/photo/pixels", picture[: len(picture) // 2])
    assert status == 400
    assert answer["error"].endswith("give a PNG, a JPEG or another common format")


GOOD = base64.b64encode(bytes(28 * 28)).decode()


@pytest.mark.parametrize(
    ("classes", "query", "why"),
    [
        ([[GOOD]], GOOD, "1 classes: must be 2 to 10"),
        ([[GOOD]] * 11, GOOD, "11 classes: must be 2 to 10"),
        ([[GOOD], []], GOOD, "a class must have 1 to 20 images"),
        ([[GOOD], [GOOD] * 21], GOOD, "a class must have 1 to 20 images"),
        ([[GOOD], [GOOD]], GOOD[4:], "an image must have 784 bytes"),
        ([[GOOD], ["AAAA"]], GOOD, "an image must have 784 bytes"),
        ([[GOOD], [3]], GOOD, "must be JSON with classes and query"),
        ([[GOOD], [GOOD]], None, "must be JSON with classes and query"),
        (7, GOOD, "must be JSON with classes and query"),
    ],
)
def test_a_question_of_another_form_is_refused(ask, classes, query, why):
    assert predict(ask, "draw", classes, query)[::2] == (400, {"error": why})


def test_text_that_is_no_question_is_refused(ask):
    for body in (b"", b"{", b"[" * 100_000, b"[]", b"\xff"):
        assert ask("/draw/predict", body)[::2] == (400, {"error": "must be JSON with classes and query"})


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--model", "nothing"], "nothing: no such file, and no model of that name"),
        (["--photo-model", "nothing"], "nothing: no such file, and no model of that name"),
        (["--port", "80"], "argument --port: 80: must be a whole number from 1024 to 65535, or 0 for any free port"),
        (["--port", "x"], "argument --port: x: must be a whole number from 1024 to 65535, or 0 for any free port"),
    ],
)
def test_a_mistake_is_one_line(words, line, tmp_path, capsys):
    model = write_untrained(tmp_path, "maml", DRAWINGS)
    assert main(["demo", "--model", model, "--photo-model", model, *words]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"fmaml: {line}")


def test_a_port_in_use_is_one_line(server, tmp_path, capsys):
    model, port = write_untrained(tmp_path, "maml", DRAWINGS), server.server_address[1]
    assert main(["demo", "--model", model, "--photo-model", model, "--port", str(port), "--no-browser"]) == 2
    assert f"--port {port}: Address already in use; give another, or 0" in capsys.readouterr().err


@contextlib.contextmanager
def killed_at_the_end(process: subprocess.Popen) -> Iterator[None]:
    """So that a command which does not end fails its test, in place of holding all of them up."""
    with process:
        try:
            yield
        finally:
            process.kill()


def test_the_command_serves_until_ctrl_c(tmp_path):
    model = write_untrained(tmp_path, "protonet", DRAWINGS)
    command = [sys.executable, "-m", "fmaml", "demo", "--model", model, "--photo-model", model, "--port", "0"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, and so inherited, in the background
    process = subprocess.Popen([*command, "--no-browser"], stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    with killed_at_the_end(process):
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE)
        connection.request("GET", "/models")
        assert json.loads(connection.getresponse().read())["draw"]["title"].startswith("untrained: protonet")
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 0
