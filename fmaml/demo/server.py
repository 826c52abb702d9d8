"""The demo's HTTP server, only for this computer and only for its own page.

It listens on the loopback address and stores nothing. Requests must have this address as Host, against DNS rebinding.
Requests from a page must come from this page (Origin).
"""

import base64
import json
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any, NamedTuple, TypeAlias

from ..errors import Error
from .classifier import Classifier, Pixels, Shown

ADDRESS = "127.0.0.1"
FILES = {f"/{file.name}": file for file in (Path(__file__).parent / "page").iterdir() if file.is_file()}
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
MAX_BYTES = 20_000_000  # of an upload
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Response(NamedTuple):
    """A response to a request."""

    status: HTTPStatus
    kind: str
    content: bytes


class Refused(Exception):
    """Refuse a request, with a status and a line of explanation."""

    def __init__(self, status: HTTPStatus, line: str) -> None:
        super().__init__(line)
        self.status = status


class DemoServer(ThreadingTCPServer):
    """The server of the page. ``classifiers`` are the models of its tabs. Port 0 takes any free port.

    Raises OSError if the port is in use.
    """

    allow_reuse_address = True  # the port can be reused at once
    daemon_threads = True

    def __init__(self, classifiers: dict[str, Classifier], port: int = 0) -> None:
        self.classifiers = classifiers
        super().__init__((ADDRESS, port), Handler)
        self.hosts = [f"{name}:{self.server_address[1]}" for name in (ADDRESS, "localhost")]
        self.origins = [f"http://{host}" for host in self.hosts]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print errors, but not those of pages that were closed before their response."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """The address of the page."""
        return self.origins[0]


class Handler(BaseHTTPRequestHandler):
    """Answer one request: for a file of the page, for the models, or a question to one of them."""

    server: DemoServer  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = 30  # seconds without a byte

    def do_GET(self) -> None:
        """Send a file of the page, or the descriptions of the models."""
        self._respond(self._get)

    def do_POST(self) -> None:
        """Send a preprocessed picture, or a model's predictions."""
        self._respond(self._post)

    def _respond(self, make: Callable[[], Response]) -> None:
        try:
            self._check_sender()
            response = make()
        except Refused as refusal:
            response = json_response({"error": str(refusal)}, refusal.status)
        except (Error, ValueError) as error:
            response = json_response({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        self.send_response(response.status)
        self.send_header("Content-Type", response.kind)
        self.send_header("Content-Length", str(len(response.content)))
        self.end_headers()
        self.wfile.write(response.content)

    def _check_sender(self) -> None:
        if self.headers["Host"] not in self.server.hosts:
            raise Refused(HTTPStatus.FORBIDDEN, f"Host: must be {self.server.hosts[0]}")
        if self.headers.get("Origin", self.server.url) not in self.server.origins:
            raise Refused(HTTPStatus.FORBIDDEN, f"Origin: must be {self.server.url}")

    def _get(self) -> Response:
        if self.path == "/models":
            return json_response(
                {"max_bytes": MAX_BYTES} | {tab: it.about() for tab, it in self.server.classifiers.items()}
            )
        file = FILES.get("/index.html" if self.path == "/" else self.path)
        if file is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"{self.path}: not found")
        return Response(HTTPStatus.OK, f"{KINDS[file.suffix]}; charset=utf-8", file.read_bytes())

    def _post(self) -> Response:
        tab, _, question = self.path.removeprefix("/").partition("/")
        classifier = self.server.classifiers.get(tab)
        if classifier is None or question not in QUESTIONS:
            raise Refused(HTTPStatus.NOT_FOUND, f"{self.path}: not found")
        return json_response(QUESTIONS[question](classifier, self._body()))

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length: missing")
        if int(length) > MAX_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"too large: at most {MAX_BYTES / 1e6:.0f} MB")
        return self.rfile.read(int(length))

    def end_headers(self) -> None:
        """Add the headers that keep other pages out to every response, also to errors."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def json_response(answer: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Make a response in JSON; ValueError for a number that is not finite."""
    return Response(status, "application/json", json.dumps(answer, allow_nan=False).encode())


def see(classifier: Classifier, picture: bytes) -> dict[str, str]:
    """Answer an image file by the network's input."""
    return {"pixels": base64.b64encode(classifier.see(picture)).decode()}


def predict(classifier: Classifier, body: bytes) -> dict[str, list[float] | None]:
    """Answer {"classes": [[pixels, ..], ..], "query": pixels} by the probabilities, before and after adaptation."""
    return classifier.answer(*read_question(body))._asdict()


def read_question(body: bytes) -> tuple[Shown, Pixels]:
    """Read the classes and the query; Refused if the JSON has another form."""
    try:
        question = json.loads(body)
        classes = tuple(tuple(map(base64.b64decode, images)) for images in question["classes"])
        return classes, base64.b64decode(question["query"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Refused(HTTPStatus.BAD_REQUEST, "must be JSON with classes and query") from None


Question: TypeAlias = Callable[[Classifier, bytes], Any]
QUESTIONS: dict[str, Question] = {"pixels": see, "predict": predict}
