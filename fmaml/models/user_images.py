"""Convert a user's images to the x of a network: files, folders, pictures in memory, or tensors."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.images.decode import (
    DecodedImage,
    TooManyPixels,
    decode_image,
    describe_changes,
    to_form,
    white_level,
    white_of,
)
from ..data.images.label_table import read_labelled
from ..data.images.scan import Classes, list_pictures
from ..data.preprocessing import Form, Ink
from ..errors import Error, note

Picture: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any]
Images: TypeAlias = (
    Picture | Tensor | Sequence[Picture] | Sequence[Tensor]
)  # a folder's path stands for the images in it
COMPLEX = (torch.complex32, torch.complex64, torch.complex128)
Support: TypeAlias = str | os.PathLike[str] | Mapping[Any, Images]


class Shape(NamedTuple):
    """The input of a network: the shape of one example, and the conversion of pictures (None: it takes none)."""

    inputs: tuple[int, ...]
    form: Form | None
    dtype: torch.dtype = torch.float32  # int64 for symbols
    white: int = 0  # the least value of white in 16-bit pictures: that of the support set


def to_inputs(images: Images, shape: Shape, ink: Ink = "auto") -> Tensor:
    """The images as float32 [n, *inputs], in the order given.

    Args:
        images: a file or a folder of images, a `PIL.Image`, a uint8 array [height, width] or [height, width, 3], or a
            sequence of these. Or a tensor [n, *inputs], or a list of tensors [*inputs], with values as in training.
        shape: the input of the network.
        ink: of drawings, for a network that takes characters; see `Form`.

    Raises:
        Error: a file is missing, or not an image that can be read.
        ValueError: a tensor has another shape, or integers where the network was trained on floats.
    """
    x, changes = read_inputs(images, shape, ink)
    for line in changes.lines():
        note(line)
    return x


class Changes(NamedTuple):
    """The changes made to pictures so that they are alike."""

    light_ink: int = 0  # the number of inverted drawings
    white: frozenset[int] = frozenset()  # values taken as white in 16-bit pictures

    def __or__(self, other: "Changes") -> "Changes":
        return Changes(self.light_ink + other.light_ink, self.white | other.white)

    def lines(self) -> list[str]:
        """A line for each change."""
        return describe_changes(self.light_ink, set(self.white))


def read_inputs(images: Images, shape: Shape, ink: Ink) -> tuple[Tensor, Changes]:
    """The images as in `to_inputs`, and the changes made to them."""
    if isinstance(images, Sequence) and images and all(isinstance(image, Tensor) for image in images):
        images = torch.stack(cast(list[Tensor], images))
    if isinstance(images, Tensor):
        return _checked(images, shape), Changes()
    if shape.form is None:
        numbers = to_tensor(images, f"x: this network takes numbers [n, {_sizes(shape.inputs)}]")
        return _checked(numbers, shape), Changes()
    pictures = list(each_picture(images))
    if not pictures:
        raise Error("no images were given; give one at least")
    form = shape.form._replace(ink=ink)
    pixels = [image_to_pixels(picture, form, shape.white) for picture in pictures]
    changes = Changes(sum(found.light_ink for found in pixels), frozenset(found.white for found in pixels))
    return scaled(np.stack([found.values for found in pixels])), changes


def to_tensor(numbers: Any, wanted: str) -> Tensor:
    """Numbers as a tensor: from a tensor, an array, a column or table of pandas, or lists; else ValueError."""
    if isinstance(numbers, Tensor):
        return numbers
    try:
        return torch.from_numpy(np.array(numbers))
    except (TypeError, ValueError):
        raise ValueError(f"{wanted}; this is {type(numbers).__name__}: give a tensor, an array or lists") from None


def scaled(pixels: np.ndarray[Any, Any]) -> Tensor:
    """Pixels from 0 to 255 as values from 0 to 1, by the same operations as in `fmaml.data.episodes`."""
    return torch.from_numpy(pixels).float() * (1 / 255)


def each_picture(images: Any) -> Iterator[Picture]:
    """Yield one picture after the other; those of a folder sorted by name."""
    if isinstance(images, str | os.PathLike):
        yield from list_pictures(Path(images))
    elif isinstance(images, Image.Image | np.ndarray):
        yield images
    else:
        for picture in images:
            yield from each_picture(picture)


def white_in(images: Any) -> int:
    """The value of white in the 16-bit pictures among these; 0 if there are none, or for tensors."""
    if isinstance(images, Tensor) or (
        isinstance(images, Sequence) and any(isinstance(each, Tensor) for each in images)
    ):
        return 0
    pictures = list(each_picture(images))
    opened = [Image.fromarray(each) if isinstance(each, np.ndarray) else each for each in pictures]
    files = white_level(os.fspath(each) for each in opened if isinstance(each, str | os.PathLike))
    return max([files, *(white_of(each) for each in opened if isinstance(each, Image.Image))])


def image_to_pixels(picture: Picture, form: Form, white: int) -> DecodedImage:
    """One picture in this form; ``white`` as in `Shape`. Error if it cannot be read."""
    name = "an image in memory"
    try:
        if isinstance(picture, np.ndarray):
            return to_form(Image.fromarray(picture), form, white)
        if isinstance(picture, Image.Image):
            return to_form(picture, form, white)
        name = os.fspath(picture)
        return decode_image(name, form, white)
    except Exception as error:  # on damaged files Pillow's decoders raise errors of any kind
        raise Error(f"{name}: {why_unreadable(error)}") from None


def why_unreadable(error: Exception) -> str:
    """The reason why an image cannot be read, and the cure, from the error of its decoder."""
    if isinstance(error, TooManyPixels):
        return str(error)
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    reason = "not an image that can be read" if "cannot identify image file" in reason else reason
    return f"{reason}; give a PNG, a JPEG or another common format"


def read_support(support: Support, shape: Shape, ink: Ink = "auto", least: int = 2) -> tuple[dict[str, Tensor], int]:
    """Class name -> its images [n, *inputs], and the value of white in 16-bit pictures; ``ink`` as in `to_inputs`.

    ``support`` is a mapping from classes to their images, or a folder. The folder has one folder for each class, or one
    file for each class, named after it. Raises Error unless there are ``least`` classes, each with an image.
    """
    if shape.form is None and not isinstance(support, Mapping):
        raise Error(
            f"{support}: this network takes numbers [n, {_sizes(shape.inputs)}] and no images; give them in Python, "
            f"class by class: fmaml.load(MODEL).adapt({{name: numbers}})"
        )
    pictures: Mapping[Any, Images] = support if isinstance(support, Mapping) else read_noted(Path(support))
    if shape.form is not None:
        shape = shape._replace(white=max([shape.white, *map(white_in, pictures.values())]))
    read = {str(name): read_inputs(images, shape, ink) for name, images in pictures.items()}
    for line in reduce(or_, (changes for _, changes in read.values()), Changes()).lines():
        note(line)
    classes = {name: x for name, (x, _) in read.items()}
    empty = [name for name, images in classes.items() if not len(images)]
    if empty:
        raise Error(f"support: class {empty[0]} has no image; give one at least")
    if len(classes) < least:
        where = "the support set" if isinstance(support, Mapping) else f"{support}"
        found = f"one class, {next(iter(classes))}" if classes else "no class"
        raise Error(f"{where}: has {found}; to tell classes apart it takes two or more")
    return classes, shape.white


def read_noted(path: Path) -> Classes:
    """The picture files of each class of a folder or a table; a note lists the files left out."""
    found = read_labelled(path)
    for line in found.lines:
        note(line)
    return found.classes


def _checked(x: Tensor, shape: Shape) -> Tensor:
    if shape.form is None and shape.dtype.is_floating_point and x.dtype not in (torch.bool, *COMPLEX):
        x = x.to(shape.dtype)  # not for images, where integers could mean 0 to 255
    what = "x" if shape.form is None else "images"
    if x.shape[1:] != shape.inputs or x.ndim != len(shape.inputs) + 1:
        raise ValueError(f"{what}: this network takes [n, {_sizes(shape.inputs)}]; these are {list(x.shape)}")
    if shape.dtype.is_floating_point != x.is_floating_point() or x.is_complex():
        found, wanted = (str(dtype).removeprefix("torch.") for dtype in (x.dtype, shape.dtype))
        raise ValueError(f"{what}: this network takes {wanted} with values as in training; these are {found}")
    return x.to(shape.dtype)


def _sizes(inputs: tuple[int, ...]) -> str:
    return ", ".join(map(str, inputs))
