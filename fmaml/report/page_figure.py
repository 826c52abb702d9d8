"""Put a matplotlib figure into a page, as SVG in the page's colours and font, for light and dark mode."""

import io
import re
from xml.etree import ElementTree

from ..files.figures import UNDATED, Axes, Figure, Text, plt, to_hex
from ..files.plain_text import printable
from .html_page import escape

UNITS = 420  # the SVG's width; text of FONT_SIZE is then readable on a phone
FONT_SIZE = 12
COLORS = {  # a figure's colour -> the page's
    **{to_hex(f"C{number}"): f"var(--c{number})" for number in range(10)},
    to_hex("gray"): "var(--c7)",
    "#b0b0b0": "var(--line)",  # the grid
    "#000000": "var(--quiet)",
}
KEPT = ("fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "fill-opacity", "text-anchor")
SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


def page_figure(figure: Figure, title: str) -> str:
    """The HTML of a figure and its legend; ``title`` describes it to screen readers.

    The figure is changed: its heading, legend, frame and background are removed, because the page has its own.
    ``title`` must be unique on the page, because the identifiers in the SVG depend on it.
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
    lines = [handle[0] if isinstance(handle, tuple) else handle for handle in handles]  # the curve of error bars
    if found := axes.get_legend():
        found.remove()
    return [(label, page_color(to_hex(plt.getp(line, "color")))) for label, line in zip(labels, lines, strict=True)]


def legend(entries: list[tuple[str, str]]) -> str:
    """The labels with their colours, in lines that wrap on a narrow page."""
    items = "".join(f'<li><i style="background:{color}"></i>{escape(label.strip())}</li>' for label, color in entries)
    return f'<ul class="legend">{items}</ul>\n' if items else ""


def restyle(axes: Axes) -> None:
    """Remove everything but the numbers, the grid and the curves."""
    axes.set_title("")
    axes.patch.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(bottom=False, left=False)
    for line in (*axes.get_xgridlines(), *axes.get_ygridlines()):
        line.set_alpha(1)


def simplify(svg: ElementTree.Element) -> None:
    """Remove the parts that the page's style sets or that browsers do not need, and use the page's colours."""
    for element in reversed([*svg.iter()]):  # children first
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
    """The element, or its parts if it is a group without attributes; nothing for metadata and matplotlib's style."""
    if element.tag in ("metadata", "style") or (element.tag == "defs" and not len(element)):
        return []
    return [*element] if element.tag == "g" and not element.attrib else [element]


def shorter(places: str) -> str:
    """Round coordinates to a tenth of a unit."""
    return re.sub(r"\d+\.\d+", lambda number: f"{round(float(number[0]), 1):g}", " ".join(places.split()))


def page_color(color: str) -> str:
    """The page's colour for one of matplotlib's; other text is unchanged."""
    return COLORS.get(color, color)
