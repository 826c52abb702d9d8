"""A matplotlib figure inside a page: SVG in the page's colours and font, so that it follows light and dark mode."""

import io
import re
from xml.etree import ElementTree

from ..files.figures import UNDATED, Axes, Figure, Text, plt, to_hex
from ..files.plain_text import printable
from .html_page import escape

UNITS = 420  # that the SVG is wide: then text of FONT_SIZE can be read on a phone
FONT_SIZE = 12
COLORS = {  # of a figure -> of the page
    **{to_hex(f"C{number}"): f"var(--c{number})" for number in range(10)},
    to_hex("gray"): "var(--c7)",
    "#b0b0b0": "var(--line)",  # the grid
    "#000000": "var(--quiet)",
}
KEPT = ("fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "fill-opacity", "text-anchor")
SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


def page_figure(figure: Figure, title: str) -> str:
    """The HTML of a figure and its legend; ``title`` says what it shows, for those who cannot see it too.

    The figure is changed: the page has its heading, its legend, its frame and its background. ``title`` is that of one
    figure of the page only, since it makes the identifiers in the SVG.
    """
    entries = [entry for axes in figure.axes for entry in take_legend(axes)]
    for axes in figure.axes:
        restyle(axes)
    figure.patch.set_visible(False)
    figure.set_size_inches(UNITS / 72, UNITS / 72 * figure.get_figheight() / figure.get_figwidth())
    for text in figure.findobj(Text):
        text.set(text=printable(text.get_text(), "\n"), parse_math=False, fontsize=FONT_SIZE)
    file = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(file, format="svg", metadata=UNDATED["svg"])
    svg = ElementTree.fromstring(file.getvalue())
    simplify(svg)
    inside = "".join(ElementTree.tostring(part, encoding="unicode") for part in svg)
    box = f'viewBox="{svg.get("viewBox")}"'
    return f'<figure>\n{legend(entries)}<svg role="img" aria-label="{escape(title)}" {box}>{inside}</svg>\n</figure>'


def take_legend(axes: Axes) -> list[tuple[str, str]]:
    """Take the legend out of a plot, and return its labels, each with its colour on the page."""
    handles, labels = axes.get_legend_handles_labels()
    lines = [handle[0] if isinstance(handle, tuple) else handle for handle in handles]  # of error bars the curve
    if found := axes.get_legend():
        found.remove()
    return [(label, page_color(to_hex(plt.getp(line, "color")))) for label, line in zip(labels, lines, strict=True)]


def legend(entries: list[tuple[str, str]]) -> str:
    """The labels, each beside its colour, in lines that break where the page is narrow."""
    items = "".join(f'<li><i style="background:{color}"></i>{escape(label.strip())}</li>' for label, color in entries)
    return f'<ul class="legend">{items}</ul>\n' if items else ""


def restyle(axes: Axes) -> None:
    """Leave only the numbers, the grid and the curves."""
    axes.set_title("")
    axes.patch.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(bottom=False, left=False)
    for line in (*axes.get_xgridlines(), *axes.get_ygridlines()):
        line.set_alpha(1)


def simplify(svg: ElementTree.Element) -> None:
    """Leave out all that the page's style sets, or that no browser needs, and put the page's colours in."""
    for element in reversed([*svg.iter()]):  # what is inside first
        element.tag = element.tag.removeprefix(SVG)
        element.tail = None
        element.text = element.text if element.tag == "text" else None
        if element.tag == "g":
            element.attrib.pop("id", None)
        if target := element.attrib.pop(LINK, None):
            element.set("href", target)
        if element.get("transform", "").startswith("rotate(-0"):
            del element.attrib["transform"]
        for name in {"d", "x", "y", "width", "height", "transform"} & element.attrib.keys():
            element.set(name, shorter(element.attrib[name]))
        parts = dict(re.findall(r"([\w-]+): ([^;]+)", element.attrib.pop("style", "")))
        if kept := [f"{name}:{page_color(parts[name])}" for name in KEPT if name in parts]:
            element.set("style", ";".join(kept))
        element[:] = [part for child in element for part in ungrouped(child)]


def ungrouped(element: ElementTree.Element) -> list[ElementTree.Element]:
    """The element, or its parts if it is a group that says nothing; nothing for metadata and matplotlib's style."""
    if element.tag in ("metadata", "style") or (element.tag == "defs" and not len(element)):
        return []
    return [*element] if element.tag == "g" and not element.attrib else [element]


def shorter(places: str) -> str:
    """Coordinates to a tenth of a unit."""
    return re.sub(r"\d+\.\d+", lambda number: f"{round(float(number[0]), 1):g}", " ".join(places.split()))


def page_color(color: str) -> str:
    """A colour of matplotlib's as the page's, any other text as it is."""
    return COLORS.get(color, color)
