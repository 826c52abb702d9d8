"""A running demo with small models, untrained: enough to find an image again that they were shown."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import torch

from fmaml.data.images.decode import Form
from fmaml.deploy.demo.classifier import Classifier
from fmaml.deploy.demo.server import DemoServer
from fmaml.deploy.learner import Learner
from fmaml.deploy.network import read_blueprint

DRAWINGS = Form(28, 1, "pad", invert=True)
PHOTOGRAPHS = Form(32, 3, "squeeze")
SETTINGS = {"maml": {"inner_lr": 0.1, "steps": 10}, "protonet": {}}


def write_untrained(folder: Path, algorithm: str, form: Form) -> str:
    """Write a model of 5 classes and return its file."""
    metadata = {
        "kind": "learner",
        "name": "untrained",
        "config": {"model": {"name": "conv4", "width": 8}, "algorithm": {"name": algorithm, **SETTINGS[algorithm]}},
        "inputs": [form.channels, form.size, form.size],
        "outputs": 5,
        "form": form._asdict(),
        "targets": "classes",
        "steps": 10,
        "task": "5-way 1-shot",
    }
    blueprint = read_blueprint(metadata, algorithm)
    network = blueprint.build(5)
    theta = network.algorithm.init(network.model.init(torch.Generator().manual_seed(0)))
    file = folder / f"{algorithm}.safetensors"
    Learner(metadata, blueprint, theta).save(file)
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
