"""`FewShotClassifier`: a trained model as a scikit-learn classifier."""

import math
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.images.understood import describe_counts, describe_pictures, describe_range
from ..errors import note
from ..extras import require
from .learner import Learner
from .load import load
from .user_images import Picture, Shape, to_inputs, white_in

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import Tags
else:
    try:
        from sklearn.base import BaseEstimator, ClassifierMixin
    except ModuleNotFoundError:  # `from fmaml import *` must not fail

        class BaseEstimator:
            def __new__(cls, *args: Any, **kwargs: Any) -> None:
                require("FewShotClassifier", "sklearn", "sklearn")

        class ClassifierMixin: ...


Examples: TypeAlias = Any  # see `FewShotClassifier.fit`


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """A scikit-learn classifier that learns from a few examples of each class, with a meta-trained model.

    It works in pipelines, in cross-validation and in a search over ``steps``, and can be pickled.

    Args:
        model: a model for classes: a file, a run folder, or the name of a model that comes with fmaml.
        steps: inner steps; None: as in the model's meta-testing. Leave it out for algorithms without inner steps, such
            as protonet.
        trust: as in `fmaml.load`.
        verbose: let `fit` print the classes, counts, sizes and values that it found. A parameter of the constructor, so
            that copies by `sklearn.base.clone` print too.

    Attributes:
        classes_: the classes, sorted.
        n_features_in_: the numbers in one example, the product of the model's inputs.
        adapted_: the `Adapted` network.

    Raises:
        Error: on construction, scikit-learn is not installed: ``pip install 'fmaml[sklearn]'``.

    >>> import numpy as np, fmaml
    >>> X = np.random.default_rng(0).random((6, 1, 28, 28))
    >>> classifier = fmaml.FewShotClassifier("omniglot").fit(X, ["a", "b", "c", "a", "b", "c"])
    >>> classifier.predict_proba(X.reshape(6, 784)).shape
    (6, 3)
    """

    def __init__(
        self, model: str | Path = "omniglot", steps: int | None = None, trust: bool = False, verbose: bool = False
    ) -> None:
        self.model = model
        self.steps = steps
        self.trust = trust
        self.verbose = verbose

    def fit(self, X: Examples, y: Any) -> Self:
        """Learn the classes of a few examples.

        Args:
            X: numbers [n, *inputs] or [n, product of inputs], with values as in training (for images 0 to 1). Or
                pictures: a uint8 array [n, height, width] or [n, height, width, 3], or a sequence of n file names,
                `PIL.Image` or uint8 arrays.
            y: the class of each example, [n].

        Returns:
            The classifier itself.

        Raises:
            ValueError: there are fewer than two classes; numbers are not finite, or do not have the model's shape. The
                model was not trained for classes; ``steps`` is negative.
            Error: there is no such model, or a picture cannot be read.
        """
        from sklearn.utils.multiclass import check_classification_targets
        from sklearn.utils.validation import check_consistent_length, validate_data

        learner = load_for_classes(self.model, trust=self.trust)
        if self.steps is not None and self.steps < 0:
            raise ValueError(f"steps = {self.steps}: must be 0 or more, or None for the model's own")
        y = validate_data(self, y=y)
        check_classification_targets(y)
        learner = learner.with_white(white_in(pictures)) if (pictures := pictures_in(X)) else learner
        x = self._to_inputs(X, learner.shape, reset=True)
        check_consistent_length(x, y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_[0]}; to tell classes apart it takes two or more")
        if self.verbose:
            for line in describe_fit(X, [str(self.classes_[i]) for i in numbers], x, learner.shape):
                note(line)
        self.adapted_ = learner.adapt(x, torch.from_numpy(numbers), steps=self.steps)
        return self

    def predict(self, X: Examples) -> np.ndarray[Any, Any]:
        """The most probable class of each example, [n]; X and errors as in `fit`."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def predict_proba(self, X: Examples) -> np.ndarray[Any, Any]:
        """The probability of each class, [n, classes] in the order of ``classes_``; X and errors as in `fit`."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        x = self._to_inputs(X, self.adapted_.shape, reset=False)
        return self.adapted_.probabilities_of(self.adapted_.outputs(x)).numpy()

    def _to_inputs(self, X: Examples, shape: Shape, *, reset: bool) -> Tensor:
        """X as float32 [n, *inputs]; ``reset`` when fitting."""
        pictures = pictures_in(X)
        if pictures is None:
            return torch.tensor(self._numbers(X, shape, reset=reset)).reshape(-1, *shape.inputs)
        if reset:
            self.n_features_in_ = math.prod(shape.inputs)
        return to_inputs(pictures, shape)

    def _numbers(self, X: Examples, shape: Shape, *, reset: bool) -> np.ndarray[Any, Any]:
        """X as float32 [n, product of inputs]."""
        from sklearn.utils.validation import validate_data

        if shape.form is not None and getattr(X, "dtype", None) == np.uint8:
            raise ValueError("X is uint8 without the axes of images; give [n, height, width], or divide by 255")
        X = np.asarray(X) if isinstance(X, list | tuple) else X
        X = X.reshape(len(X), -1) if getattr(X, "ndim", 2) > 2 else X
        numbers: Any = validate_data(self, X, dtype=np.float32, reset=reset)
        width = math.prod(shape.inputs)
        if numbers.shape[1] != width:
            raise ValueError(
                f"X has {numbers.shape[1]} features, but this model takes {width}, of shape {list(shape.inputs)}; "
                "give arrays of that shape, or a model for these"
            )
        return numbers

    def __sklearn_tags__(self) -> "Tags":
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True  # of grey images
        return tags


def load_for_classes(model: str | Path, *, trust: bool) -> Learner:
    """The learner of a model; ValueError unless it was trained for classes."""
    learner = load(model, trust=trust)
    if learner.blueprint.targets != "classes":
        raise ValueError(f"model = {model}: was trained for {learner.blueprint.targets}; give one trained for classes")
    return learner


def describe_fit(X: Examples, labels: list[str], x: Tensor, shape: Shape) -> list[str]:
    """Lines about the examples X with these labels, and about x, the values that the network sees."""
    pictures = pictures_in(X)
    if pictures is None:
        found = describe_counts(Counter(labels), "example")
    else:
        found = describe_pictures(by_label(pictures, labels))
    return [found, describe_range(x.numpy(), drawings=shape.form is not None and shape.form.invert)]


def by_label(pictures: list[Picture], labels: list[str]) -> dict[str, list[Picture]]:
    """The pictures of each label, sorted by label."""
    found: dict[str, list[Picture]] = {label: [] for label in sorted(set(labels))}
    for picture, label in zip(pictures, labels, strict=True):
        found[label].append(picture)
    return found


def pictures_in(X: Examples) -> list[Picture] | None:
    """The pictures or file names in X; None if X has numbers as in training."""
    if isinstance(X, list | tuple):
        items = list(X)
    else:
        array = np.asarray(X)
        if array.dtype == np.uint8 and array.ndim > 2:
            return list(array)
        is_column = array.dtype.kind in "OU" and array.ndim > 0 and array.size == len(array)
        items = list(array.ravel()) if is_column else []
    return items if items and all(map(is_picture, items)) else None


def is_picture(item: Any) -> bool:
    """Whether an item is a file name, a `PIL.Image`, or a uint8 array with the axes of an image."""
    if isinstance(item, np.ndarray):
        return item.dtype == np.uint8 and item.ndim in (2, 3)
    return isinstance(item, str | os.PathLike | Image.Image)
