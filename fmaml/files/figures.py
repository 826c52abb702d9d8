"""Set up matplotlib to draw the same on every machine, and save figures. fmaml imports matplotlib only here."""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"  # needs no display; an unknown backend would fail the import

import matplotlib

matplotlib.use("Agg")  # if it was already imported

from matplotlib import pyplot as plt
from matplotlib.axes import Axes as Axes
from matplotlib.colors import to_hex as to_hex
from matplotlib.figure import Figure as Figure
from matplotlib.text import Text as Text

from .atomic import write_durably

matplotlib.rcdefaults()  # ignore the user's matplotlibrc, which may need LaTeX
matplotlib.rcParams["svg.hashsalt"] = "fmaml"  # identifiers in an SVG are random by default
matplotlib.rcParams["pdf.fonttype"] = 42  # TrueType: publishers refuse matplotlib's default fonts
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # format -> metadata; dates would change the files
_also: tuple[str, ...] = ()  # formats besides that of a figure's path


@contextlib.contextmanager
def also_in(formats: Sequence[str]) -> Iterator[None]:
    """Also write these formats, such as "svg", in each `save_figure` within the block.

    So sources need only one path a picture.
    """
    global _also
    before, _also = _also, tuple(formats)
    try:
        yield
    finally:
        _also = before


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure as an image file, atomically, and release its memory. See `also_in` for more formats."""
    images: dict[Path, bytes] = {}
    for suffix in dict.fromkeys([path.suffix.removeprefix("."), *_also]):
        image = io.BytesIO()
        figure.savefig(image, dpi=130, format=suffix, metadata=UNDATED.get(suffix))
        images[path.with_suffix(f".{suffix}")] = image.getvalue()
    plt.close(figure)
    for file, content in images.items():
        write_durably(file, content)
