"""Predictions as a table, JSON, CSV, or a page with thumbnails."""

import base64
import csv
import html
import io
import json
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..files.atomic import write_text_durably
from .learner import Adapted, Prediction

THUMBNAIL = 160  # pixels
LEAST_TABLE_WIDTH = 50  # characters


class Row(NamedTuple):
    """What was predicted for one image."""

    image: str
    label: str
    probabilities: dict[str, float]  # class -> probability

    @property
    def probability(self) -> float:
        """That of the label."""
        return self.probabilities[self.label]


def rows_of(photos: list[str], prediction: Prediction, classes: list[str]) -> list[Row]:
    """A row for each photograph."""
    table = zip(photos, prediction.labels, prediction.probabilities.tolist(), strict=True)
    return [Row(photo, label, dict(zip(classes, values, strict=True))) for photo, label, values in table]


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
    """Print a table of the images, what each is, how likely, and what else; a line each in a narrow terminal."""
    table = Table("image", "label", highlight=False)
    for heading in ("probability", "else"):
        table.add_column(heading, justify="right")
    for column in table.columns:
        column.overflow = "fold"  # names are shown whole
    for row in rows:
        cells = (printable(row.image), printable(row.label), f"{row.probability:.1%}", second(row))
        table.add_row(*map(escape, cells))
    console = Console()
    if console.width >= LEAST_TABLE_WIDTH:
        console.print(table)
    else:
        lines = [
            f"{printable(row.image)}: {printable(row.label)} {row.probability:.1%}, else {second(row)}" for row in rows
        ]
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def second(row: Row) -> str:
    """The second likeliest class with its probability."""
    name = sorted(row.probabilities, key=lambda name: row.probabilities[name])[-2]
    return f"{printable(name)} {row.probabilities[name]:.1%}"


def printable(name: str) -> str:
    """The name with what a terminal would obey, such as an escape sequence or a line's end, replaced."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)


def write_page(path: Path, rows: list[Row], adapted: Adapted) -> None:
    """Write one HTML file that needs no other: each image with a bar for every class."""
    figures = "\n".join(figure_of(row) for row in rows)
    title = f"{adapted.metadata['name']}: {len(rows)} images, {len(adapted.classes)} classes"
    write_text_durably(path, PAGE.format(title=html.escape(title), figures=figures))


def figure_of(row: Row) -> str:
    """The HTML of one image and its bars, the likeliest class first."""
    order = sorted(row.probabilities.items(), key=lambda pair: -pair[1])
    bars = "".join(
        f'<div class="row"><span>{html.escape(name)}</span><i><b style="width:{value:.1%}"></b></i>'
        f"<em>{value:.1%}</em></div>"
        for name, value in order[:10]
    )
    name = html.escape(row.image)
    image = f'<img src="{thumbnail(row.image)}" alt="{name}">'
    return f"<figure>{image}<figcaption><h2>{html.escape(row.label)}</h2>{bars}<p>{name}</p></figcaption></figure>"


def thumbnail(file: str) -> str:
    """The image as a data URL."""
    with Image.open(file) as image:
        small = ImageOps.exif_transpose(image).convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        small.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark; --line: #8884; --bar: #3b7ddd; }}
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem; }}
figure {{ display: flex; gap: 1rem; margin: 0; padding: 1rem; border: 1px solid var(--line); border-radius: 8px; }}
img {{ width: 7rem; height: 7rem; object-fit: contain; image-rendering: auto; background: #fff; border-radius: 4px; }}
figcaption {{ flex: 1; min-width: 0; }}
h1 {{ font-size: 1.2rem; }} h2 {{ font-size: 1rem; margin: 0 0 .4rem; }}
.row {{ display: grid; grid-template-columns: minmax(0, 4rem) 1fr 3.5rem; gap: .5rem; align-items: center; }}
.row span {{ overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }}
.row i {{ background: var(--line); border-radius: 3px; height: .6rem; }}
.row b {{ display: block; background: var(--bar); border-radius: 3px; height: 100%; }}
.row em {{ font-style: normal; text-align: right; font-variant-numeric: tabular-nums; }}
p {{ color: GrayText; font-size: .8rem; margin: .4rem 0 0; overflow-wrap: anywhere; }}
</style></head><body><h1>{title}</h1><main>
{figures}
</main></body></html>
"""
