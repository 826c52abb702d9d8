"""matplotlib, set up to draw the same for everyone, and figures as files. All of fmaml imports matplotlib from here."""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"  # writes files, needs no display; matplotlib fails to import with an unknown one

import matplotlib

matplotlib.use("Agg")  # where it was imported before

from matplotlib import pyplot as plt
from matplotlib.axes import Axes as Axes
from matplotlib.colors import to_hex as to_hex
from matplotlib.figure import Figure as Figure
from matplotlib.text import Text as Text

from .atomic import write_durably

matplotlib.rcdefaults()  # pictures do not depend on the user's matplotlibrc, which may ask for LaTeX
matplotlib.rcParams["svg.hashsalt"] = "fmaml"  # identifiers in an SVG are random otherwise
matplotlib.rcParams["pdf.fonttype"] = 42  # TrueType: publishers refuse the fonts that matplotlib makes by default
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # format -> metadata, so that bits do not change
_also: tuple[str, ...] = ()  # formats that figures are written in beside the one that their path names


@contextlib.contextmanager
def also_in(formats: Sequence[str]) -> Iterator[None]:
    """Within it `save_figure` writes these formats too, such as "svg", beside the one that its path names.

    A source names its pictures by one path each, and need not know of formats.
    """
    global _also
    before, _also = _also, tuple(formats)
    try:
        yield
    finally:
        _also = before


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure as an image file, whole or not at all, and release its memory; see `also_in`."""
    images: dict[Path, bytes] = {}
    for suffix in dict.fromkeys([path.suffix.removeprefix("."), *_also]):
        image = io.BytesIO()
        figure.savefig(image, dpi=130, format=suffix, metadata=UNDATED.get(suffix))
        images[path.with_suffix(f".{suffix}")] = image.getvalue()
    plt.close(figure)
    for file, content in images.items():
        write_durably(file, content)
