"""`fmaml demo`. Imports torch only when the command runs."""

import argparse
import contextlib
import threading
import webbrowser
from typing import TYPE_CHECKING

from ..errors import Error, note
from ..models.find_model import find_model
from ..processes.limits import importing_torch
from .arguments import MODEL, add_trust_option, new_parser, parse_arguments

if TYPE_CHECKING:
    from ..demo.server import DemoServer


def demo_command(argv: list[str]) -> None:
    """`fmaml demo`: serve the page until Ctrl+C."""
    parser = new_parser("demo", "Open a page on this computer: a trained model learns your drawings or photographs.")
    parser.add_argument("--model", default="omniglot", metavar="MODEL", help=f"for drawings: {MODEL} (%(default)s)")
    parser.add_argument("--photo-model", default="photographs", metavar="MODEL", help="for photographs (%(default)s)")
    parser.add_argument("--port", type=port, default=8765, metavar="N", help="0: any free port (%(default)s)")
    parser.add_argument("--no-browser", action="store_true", help="only print the page's address")
    add_trust_option(parser)
    args = parse_arguments(parser, argv)
    for model in (args.model, args.photo_model):
        find_model(model)  # before importing torch
    note("loading the models")

    with importing_torch():
        from ..demo.classifier import Classifier

    classifiers = {
        kind: Classifier(model, trust=args.trust) for kind, model in (("draw", args.model), ("photo", args.photo_model))
    }
    with contextlib.suppress(KeyboardInterrupt), new_server(classifiers, args.port) as server:
        print(f"{server.url} is the page; Ctrl+C ends it", flush=True)
        if not args.no_browser:  # in a thread, because a browser in the terminal returns only when it is closed
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        server.serve_forever()


def new_server(classifiers: dict, port: int) -> "DemoServer":
    """The server; Error if the port is not free."""
    from ..demo.server import DemoServer

    try:
        return DemoServer(classifiers, port)
    except OSError as error:
        raise Error(f"--port {port}: {error.strerror}; give another, or 0 for any free one") from None


def port(word: str) -> int:
    """``word`` as a port; else argparse's error, which the parser reports."""
    if word.isdecimal() and (word == "0" or 1024 <= int(word) <= 65_535):
        return int(word)
    raise argparse.ArgumentTypeError(f"{word}: must be a whole number from 1024 to 65535, or 0 for any free port")
