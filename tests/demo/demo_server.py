"""A running demo with small models, untrained: enough to find an image again that they were shown."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from learners import CONV4, untrained

from fmaml.data.preprocessing import Form
from fmaml.demo.classifier import Classifier
from fmaml.demo.server import DemoServer

DRAWINGS = Form(28, 1, "pad", invert=True)
PHOTOGRAPHS = Form(32, 3, "squeeze")
SETTINGS = {"maml": {"inner_lr": 0.1, "steps": 10}, "protonet": {}}


def write_untrained(folder: Path, algorithm: str, form: Form) -> str:
    """Write a model of 5 classes and return its file."""
    facts = {
        "inputs": [form.channels, form.size, form.size],
        "form": form._asdict(),
        "steps": 10,
        "task": "5-way 1-shot",
    }
    file = folder / f"{algorithm}.safetensors"
    untrained(CONV4, {"name": algorithm, **SETTINGS[algorithm]}, **facts).save(file)
    return str(file)


def untrained_classifiers(folder: Path) -> dict[str, Classifier]:
    """One that takes gradient steps for drawings, and one with prototypes for photographs."""
    return {
        "draw": Classifier(write_untrained(folder, "maml", DRAWINGS)),
        "photo": Classifier(write_untrained(folder, "protonet", PHOTOGRAPHS)),
    }


@contextlib.contextmanager
def serving(classifiers: dict[str, Classifier]) -> Iterator[DemoServer]:
    """The demo's server while it serves, at any free port."""
    with DemoServer(classifiers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
