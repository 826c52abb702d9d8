"""An HTML page that needs no other file: its style, sections, tables, bars, images. It escapes the text it is given."""

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence

from PIL import Image

from ..files.plain_text import printable

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --text: #1b1e24; --quiet: #565d69; --line: #d5d9e0; --track: #eaedf1;
  --right: #1a7f37; --wrong: #b3261e; --paper: #fff;
  --c0: #2b62c9; --c1: #c4580c; --c2: #0f7f6e; --c3: #c02942; --c4: #8b3fb5; --c5: #7a5230; --c6: #b83a86;
  --c7: #6b7380; --c8: #96700a; --c9: #1380a1;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #15171c; --card: #1f2229; --text: #e8eaef; --quiet: #a7aebb; --line: #3a3f4a; --track: #2c3039;
    --right: #6fce8a; --wrong: #ff9a90; --paper: #eeece6;
    --c0: #7da6f7; --c1: #f3a25f; --c2: #5cc9b5; --c3: #ff8b93; --c4: #cf9af0; --c5: #cba98a; --c6: #f29ac8;
    --c7: #9aa2b0; --c8: #dcbb55; --c9: #6cc7e6;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 3rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 .5rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .4rem; }
p { margin: 0 0 .75rem; }
.quiet, figcaption, .lead { color: var(--quiet); }
.quiet, figcaption { font-size: .875rem; }
.big { font-size: 2.1rem; line-height: 1.2; font-weight: 650; margin: .75rem 0 0; font-variant-numeric: tabular-nums; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem 1.1rem;
  margin-top: 1rem; }
section > :last-child { margin-bottom: 0; }
.warning { border-left: 4px solid var(--wrong); }
code, pre { font: .875em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { overflow-wrap: anywhere; }
pre { margin: 0 0 .75rem; padding: .6rem .8rem; background: var(--track); border-radius: 8px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 0 0 .75rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); }
tr:last-child > * { border-bottom: 0; }
th { font-weight: 600; }
thead th { font-size: .875rem; color: var(--quiet); vertical-align: bottom; }
td.number { text-align: right; white-space: nowrap; }
th.number { text-align: right; max-width: 12rem; }
td code { white-space: pre-wrap; }
details > summary { cursor: pointer; color: var(--quiet); font-size: .875rem; margin-bottom: .5rem; }
figure { margin: 0 0 1rem; }
.right { color: var(--right); } .wrong { color: var(--wrong); }

.legend { display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; margin: 0; padding: 0; list-style: none;
  font-size: .875rem; }
.legend i { display: inline-block; width: 1.1rem; height: .25rem; border-radius: 2px; margin-right: .4rem;
  vertical-align: .22rem; }
figure > svg { display: block; width: 100%; height: auto; max-width: 46rem; }
figure path { stroke-linejoin: round; vector-effect: non-scaling-stroke; }
figure text { font-size: 12px; fill: var(--quiet); font-variant-numeric: tabular-nums; }

.rows { display: grid; grid-template-columns: minmax(6rem, 16rem) minmax(0, 1fr) auto; gap: .45rem .9rem;
  align-items: center; grid-auto-flow: dense; font-size: .9rem; }
.rows > span { grid-column: 1; overflow-wrap: anywhere; }
.rows > .bar { grid-column: 2; }
.rows > em { grid-column: 3; font-style: normal; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.bar { height: .7rem; border-radius: 3px; background: var(--track); }
.bar i { display: block; height: 100%; border-radius: 3px; background: var(--c0); min-width: 1px; }

@media (max-width: 40rem) {
  body { padding: 1rem .6rem 2rem; }
  section { padding: .85rem .8rem; }
  .rows { grid-template-columns: minmax(0, 1fr) auto; grid-auto-flow: row; gap: .1rem .9rem; }
  .rows > em { grid-column: 2; }
  .rows > .bar { grid-column: 1 / -1; margin-bottom: .4rem; }
}
@media screen and (min-width: 40rem) { figure text { font-size: 7.5px; } }
@media print {
  :root { --page: #fff; --text: #000; --quiet: #444; }
  figure text { font-size: 7.5px; }
  body { max-width: none; padding: 0; font-size: 11pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  section { border: 0; border-top: 1px solid var(--line); border-radius: 0; padding: .75rem 0; }
  figure, tr, .pair, .class { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""


def document(title: str, heading: str, *parts: str, style: str = "") -> str:
    """A whole page: a header with ``heading``, and a main part with ``parts``, all HTML.

    ``title`` is text; ``style`` is CSS beside that of every page.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n"
        f"<header>\n{heading}\n</header>\n<main>\n" + "\n".join(filter(None, parts)) + "\n</main>\n</body>\n</html>\n"
    )


def escape(text: object) -> str:
    """The text as HTML shows it, in an attribute too."""
    return html.escape(printable(str(text), "\t\n"), quote=True)


def section(title: str, *parts: str, kind: str = "") -> str:
    """A section of the page; "" if it would be empty."""
    inside = "\n".join(filter(None, parts))
    attribute = f' class="{kind}"' if kind else ""
    return f"<section{attribute}>\n<h2>{escape(title)}</h2>\n{inside}\n</section>" if inside else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of text."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>" if text else ""


def preformatted(text: str) -> str:
    """Text with its line ends, such as a command."""
    return f"<pre>{escape(text)}</pre>"


def folded(summary: str, inside: str) -> str:
    """HTML that is shown when its summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>\n{inside}\n</details>"


def html_table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """A table of texts; ``numbers`` are the columns that are aligned right. Each row begins with its heading.

    The box around it scrolls, also by the keyboard.
    """
    right = set(numbers)

    def cell(tag: str, column: int, text: str) -> str:
        attribute = ' class="number"' if column in right else ""
        return f"<{tag}{attribute}>{escape(text)}</{tag}>"

    head = "".join(cell("th" if text else "td", column, text) for column, text in enumerate(headings))
    body = "\n".join(
        "<tr>" + "".join(cell("td" if column else "th", column, text) for column, text in enumerate(row)) + "</tr>"
        for row in rows
    )
    thead = f"<thead><tr>{head}</tr></thead>\n" if any(headings) else ""
    box = '<div class="scroll" role="group" aria-label="Table" tabindex="0">'
    return f"{box}<table>\n{thead}<tbody>\n{body}\n</tbody></table></div>"


def bars(title: str, rows: Sequence[tuple[str, float, str]], full: float | None = None) -> str:
    """A bar for each (label, value, text); ``full``, by default the largest value, is as wide as there is room."""
    full = full or max((value for _, value, _ in rows if math.isfinite(value)), default=0) or 1.0
    lines = "".join(
        f"<span>{escape(label)}</span><em>{escape(text)}</em>"
        f'<div class="bar"><i style="width:{value / full if math.isfinite(value) else 0:.2%}"></i></div>'
        for label, value, text in rows
    )
    return f'<figure class="rows" role="group" aria-label="{escape(title)}">{lines}</figure>' if rows else ""


def png_tag(image: Image.Image, alt: str, largest: int) -> str:
    """The image inside the page; it is made smaller if a side is longer than ``largest`` pixels."""
    image.thumbnail((largest, largest))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f'<img src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}" alt="{escape(alt)}">'
