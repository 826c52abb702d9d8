"""Convert images of a source to the form that a model takes, such as 84x84 or drawings to 32x32 in colour."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..types import Batch, Task
from .preprocessing import Form
from .source import Sample, Source

_LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in grey (ITU-R BT.601), the same as for files


def of_form(source: Source, form: Form) -> Source:
    """Convert a source of square images to another form: size, grey or colour, light or dark ink.

    Returns the source itself if it has this form. How images were made square (``fit``) does not count.

    Raises ValueError if the source has no images.
    """
    own = source.form
    if own is None:
        raise ValueError("the source has no images")
    if own._replace(fit=form.fit, ink=form.ink) == form:
        return source

    inputs = (form.channels, form.size, form.size)
    exchanged = ", light and dark exchanged" if own.invert != form.invert else ""
    protocol = f"{source.about['protocol']}, images of {_shape(own)} as {_shape(form)}{exchanged}"
    about = {**source.about, "protocol": protocol}
    sample = partial(_sample_converted, source.sample, own, form)
    return source._replace(sample=sample, inputs=inputs, about=about, form=form, of_features=None, seen=None)


def _sample_converted(sample: Sample, own: Form, form: Form, split: str, step: int, tasks: range) -> Task:
    return Task(*(Batch(convert(x, own, form), y) for x, y in sample(split, step, tasks)))


def convert(x: Tensor, own: Form, form: Form) -> Tensor:
    """Convert images x [tasks, n, channels, size, size] in [0, 1] from the form ``own`` to ``form``."""
    images = x.flatten(0, 1)
    if own.channels > form.channels:
        images = (images * images.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    if own.size != form.size:
        size = (form.size, form.size)
        images = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    if own.invert != form.invert:
        images = 1 - images
    return images.expand(-1, form.channels, -1, -1).contiguous().unflatten(0, torch.Size(x.shape[:2]))


def _shape(form: Form) -> str:
    return f"{form.size}x{form.size}x{form.channels}"
