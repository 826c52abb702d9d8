"""The demo's model: preprocess pictures, and classify queries."""

from functools import lru_cache
from io import BytesIO
from math import prod
from threading import BoundedSemaphore, Lock
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from torch import Tensor

from ..calibration import USUAL_REJECT
from ..data.images.decode import decode_image
from ..errors import Error
from ..models.learner import Adapted
from ..models.load import load
from ..models.user_images import scaled, why_unreadable

Pixels: TypeAlias = bytes  # an image in the model's form: uint8 [channels, size, size]
Shown: TypeAlias = tuple[tuple[Pixels, ...], ...]  # the images of each class

MAX_CLASSES = 10
MAX_IMAGES = 20  # of a class
DECODING = BoundedSemaphore(2)  # pictures decoded at once; the memory of more would add up


class Answer(NamedTuple):
    """The probability of each class, before and after adaptation."""

    before: list[float] | None  # None: the model has no predictions before adaptation
    after: list[float]
    none: float | None  # the probability of none of these; None: the model has no limit for it


class Classifier:
    """A trained model that learns classes from a few images of each. Thread-safe.

    Raises Error if there is no such model, or if it does not classify images.
    """

    def __init__(self, name: str, *, trust: bool = False) -> None:
        self.learner = load(name, trust=trust)
        blueprint = self.learner.blueprint
        if blueprint.form is None or blueprint.targets != "classes":
            raise Error(f"{name}: does not classify images; give a model that does, such as omniglot")
        self.form = blueprint.form
        self._adapted = lru_cache(2)(self._adapt)  # before and after
        self._lock = Lock()

    def about(self) -> dict[str, Any]:
        """The model's description on the page."""
        metadata = self.learner.metadata
        algorithm = self.learner.blueprint.algorithm
        learns = "ridge regression" if algorithm.get("classifier") == "ridge" else algorithm["name"]
        measured = f", measured on {task} tasks" if (task := metadata.get("task")) else ""
        return {
            "title": f"{metadata.get('name')}: {learns}{measured}",
            "size": self.form.size,
            "channels": self.form.channels,
            "max_classes": MAX_CLASSES,
            "max_images": MAX_IMAGES,
        }

    def see(self, picture: bytes) -> Pixels:
        """Convert an image file to the network's input; Error if it cannot be read."""
        try:
            with DECODING:
                return decode_image(BytesIO(picture), self.form._replace(ink="auto")).values.tobytes()
        except Exception as error:  # on damaged files Pillow's decoders raise errors of any kind
            raise Error(why_unreadable(error)) from None

    def answer(self, classes: Shown, query: Pixels) -> Answer:
        """Classify the query; Error or ValueError if the classes cannot be learnt."""
        self._check(classes, query)
        x = self._tensor((query,))
        with self._lock:
            before = self._adapted(classes, 0).predict(x) if self.has_before(len(classes)) else None
            adapted = self._adapted(classes, None)
            after = adapted.predict(x, reject=USUAL_REJECT if adapted.can_reject else None)
        found = after.probabilities[0].tolist()
        none = found.pop() if adapted.can_reject else None
        return Answer(before and before.probabilities[0].tolist(), found, none)

    def has_before(self, classes: int) -> bool:
        """Whether the network can predict this number of classes before adaptation, if only by chance.

        It cannot if its last layer is computed from the examples, as in prototypical networks.
        """
        blueprint = self.learner.blueprint
        gradient_steps = blueprint.build(blueprint.outputs).algorithm.trajectory is not None
        return gradient_steps and "head" not in blueprint.algorithm and classes <= blueprint.outputs

    def _adapt(self, classes: Shown, steps: int | None) -> Adapted:
        support = {f"{i:02}": self._tensor(images) for i, images in enumerate(classes)}  # in this order when sorted
        return self.learner.adapt(support, steps=steps)

    def _tensor(self, images: tuple[Pixels, ...]) -> Tensor:
        pixels = np.frombuffer(bytearray().join(images), np.uint8)
        return scaled(pixels.reshape(len(images), *self.learner.shape.inputs))

    def _check(self, classes: Shown, query: Pixels) -> None:
        if not 2 <= len(classes) <= MAX_CLASSES:
            raise Error(f"{len(classes)} classes: must be 2 to {MAX_CLASSES}")
        if not all(1 <= len(images) <= MAX_IMAGES for images in classes):
            raise Error(f"a class must have 1 to {MAX_IMAGES} images")
        size = prod(self.learner.shape.inputs)
        if any(len(pixels) != size for images in (*classes, (query,)) for pixels in images):
            raise Error(f"an image must have {size} bytes")
