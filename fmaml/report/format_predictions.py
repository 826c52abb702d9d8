"""Predictions as a table, JSON, CSV, or a page with thumbnails."""

import csv
import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from PIL import ImageOps
from rich.table import Table

from ..calibration import NONE
from ..data.images.decode import open_picture
from ..files.atomic import write_text_durably
from ..files.console import CleanConsole
from ..files.plain_text import printable
from ..models.learner import Adapted
from ..models.predictor import Prediction
from .html_page import bars, document, escape, paragraph, png_tag, preformatted

THUMBNAIL = 160  # pixels
SHOWN_ROWS = 40  # of the table in the terminal
MOST_BARS = 10  # for an image: its most likely classes
LEAST_TABLE_WIDTH = 50  # characters
STYLE_OF_PREDICTIONS = """
body { max-width: 72rem; }
main { margin-top: .75rem; display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem; }
main > figure { display: flex; flex-direction: column; gap: .5rem; margin: 0; padding: 1rem;
  border: 1px solid var(--line); border-radius: 12px; background: var(--card); }
figcaption { color: var(--text); overflow-wrap: break-word; }
img { width: 7rem; height: 7rem; object-fit: contain; background: var(--paper); border-radius: 5px; }
.rows { grid-template-columns: minmax(0, 8rem) minmax(4rem, 1fr) auto; grid-auto-flow: dense; }
.rows > .bar { grid-column: 2; margin: 0; }
.rows > em { grid-column: 3; }
"""


class Row(NamedTuple):
    """The prediction for one image."""

    image: str
    label: str
    probabilities: dict[str, float]  # class -> probability

    @property
    def probability(self) -> float:
        """The probability of the label."""
        return self.probabilities[self.label]


def rows_of(photos: list[str], prediction: Prediction, classes: list[str]) -> list[Row]:
    """A row for each photograph; the last probability may be that of none of these."""
    names = [*classes, NONE][: prediction.probabilities.shape[1]]
    table = zip(photos, prediction.labels, prediction.probabilities.tolist(), strict=True)
    return [Row(photo, label, dict(zip(names, values, strict=True))) for photo, label, values in table]


def shown_names(rows: list[Row]) -> list[str]:
    """The paths of the images relative to the folder that holds all of them."""
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(row.image)) for row in rows])
    return [os.path.relpath(row.image, folder) for row in rows]


def as_json(rows: list[Row]) -> str:
    """A list of objects with image, label, probability and the probabilities of all classes."""
    found = [
        {
            "image": row.image,
            "label": row.label,
            "probability": round(row.probability, 6),
            "probabilities": {name: round(value, 6) for name, value in row.probabilities.items()},
        }
        for row in rows
    ]
    return json.dumps(found, indent=2, ensure_ascii=False)


def as_csv(rows: list[Row]) -> str:
    """Lines of image, label, probability and the probability of each class, with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "label", "probability", *map(printable, rows[0].probabilities)])
    for row in rows:
        numbers = [row.probability, *row.probabilities.values()]
        writer.writerow([printable(row.image), printable(row.label), *(f"{value:.6f}" for value in numbers)])
    return text.getvalue()


def print_table(rows: list[Row]) -> None:
    """Print each image with its label, the probability and the second label, as a table if the terminal is wide."""
    table = Table("image", "label")
    for heading in ("probability", "else"):
        table.add_column(heading, justify="right")
    for column in table.columns:
        column.overflow = "fold"  # names are shown whole
    every, rows = rows, rows[:SHOWN_ROWS]
    names = shown_names(every)[:SHOWN_ROWS]
    for name, row in zip(names, rows, strict=True):
        cells = (printable(name), printable(row.label), f"{row.probability:.1%}", second(row))
        table.add_row(*cells)
    console = CleanConsole()
    if console.width >= LEAST_TABLE_WIDTH:
        console.print(table)
    else:
        lines = [
            f"{printable(name)}: {printable(row.label)} {row.probability:.1%}, else {second(row)}"
            for name, row in zip(names, rows, strict=True)
        ]
        console.print("\n".join(lines), soft_wrap=True)
    for line in describe_rest(every):
        console.print(line, soft_wrap=not console.is_terminal)


def describe_rest(rows: list[Row]) -> list[str]:
    """Lines below a table that was cut: the options that show all pictures, and the counts of each label."""
    if len(rows) <= SHOWN_ROWS:
        return []
    labels = Counter(row.label for row in rows).most_common()
    return [
        f"{len(rows) - SHOWN_ROWS} more pictures; --csv or --json prints all of them, --html FILE writes a page",
        f"labels of all {len(rows)}: {', '.join(f'{printable(label)} {count}' for label, count in labels)}",
    ]


def second(row: Row) -> str:
    """The most likely class besides the label, with its probability."""
    others = row.probabilities.keys() - {row.label, NONE}
    name = max(sorted(others), key=lambda name: row.probabilities[name])
    return f"{printable(name)} {row.probabilities[name]:.1%}"


def write_page(path: Path, rows: list[Row], adapted: Adapted, model: str, lines: list[str]) -> None:
    """Write one self-contained HTML file: each image with a bar for every class.

    ``model`` is the model's file or name. ``lines`` about the accuracy and none of these stand above.
    """
    own = str(adapted.metadata["name"])
    name = Path(model).name + (f", adapted from {own}" if own != Path(model).name else "")
    title = f"{name}: {len(rows)} images, {len(adapted.classes)} classes"
    first, rest = lines[:1], "\n".join(lines[1:])
    lead = "".join(paragraph(line, "lead") for line in first) + (preformatted(rest) if rest else "")
    figures = "\n".join(map(figure_of, rows, shown_names(rows)))
    write_text_durably(path, document(title, f"<h1>{escape(title)}</h1>{lead}", figures, style=STYLE_OF_PREDICTIONS))


def figure_of(row: Row, shown: str) -> str:
    """The HTML of one image and its bars, the most likely class first; ``shown`` is the name below."""
    order = sorted(row.probabilities.items(), key=lambda pair: -pair[1])[:MOST_BARS]
    drawn = bars(shown, [(name, value, f"{value:.1%}") for name, value in order], full=1.0)
    with open_picture(row.image, THUMBNAIL) as image:
        tag = png_tag(ImageOps.exif_transpose(image).convert("RGB"), shown, THUMBNAIL)
    label, name = escape(row.label), escape(shown)
    return f'<figure>{tag}<figcaption><h2>{label}</h2>{drawn}<p class="quiet">{name}</p></figcaption></figure>'
