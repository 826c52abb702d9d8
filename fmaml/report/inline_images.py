"""Examples as pictures inside a page: images as PNG in a data URL, signals as a line."""

import base64
import io

import numpy as np
from PIL import Image
from torch import Tensor

LARGEST = 64  # pixels; larger images are made smaller, or a page of a hundred would be megabytes


def picture_of(x: Tensor, alt: str) -> str:
    """The HTML of one example, an image [1 or 3, height, width] in [0, 1] or a signal [channels, length]."""
    return image_tag(x, alt) if x.ndim == 3 else signal_line(x, alt)


def image_tag(x: Tensor, alt: str) -> str:
    """An image; one channel is drawn as black on white, as ink is 1. ``alt`` is HTML already."""
    pixels = (255 * x.detach().float().cpu().nan_to_num().clamp(0, 1)).byte().numpy()
    shown = Image.fromarray(
        255 - pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels[:3].transpose(1, 2, 0))
    )
    shown.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    shown.save(file, "PNG", optimize=True)
    return f'<img src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}" alt="{alt}">'


def signal_line(x: Tensor, alt: str) -> str:
    """The first channel of a signal as a line."""
    values = x[0].detach().float().cpu().nan_to_num()
    values = values[:: max(1, len(values) // 100)]
    low, high = float(values.min()), float(values.max())
    places = [
        f"{100 * i / max(1, len(values) - 1):.1f} {38 - 36 * (v - low) / ((high - low) or 1):.1f}"
        for i, v in enumerate(values.tolist())
    ]
    return (
        f'<svg class="signal" viewBox="0 0 100 40" role="img" aria-label="{alt}"><path d="M{"L".join(places)}"/></svg>'
    )
