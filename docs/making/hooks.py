"""Hooks of mkdocs: tutorials with their outputs, the lists of settings, and pages that can be used by everybody."""

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

from notebooks import as_markdown, executed, names, source
from settings_page import experiments, section

RESULTS = Path(__file__).parents[2] / "benchmarks/results"
LISTED = re.compile(r"^<!-- (\w+) -->$", re.MULTILINE)
OBJECT = re.compile(r"^(::: .*)(?:\n    options:)?$", re.MULTILINE)
IN_A_SECTION = "\n    options:\n      heading_level: 3"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """A page that the navigation does not name stands at the end of "How-to"."""
    assert config.nav is not None
    named = set(re.findall(r"[\w/]+\.(?:md|ipynb)", str(config.nav)))
    more = sorted(path.name for path in Path(config.docs_dir).glob("*.md") if path.name not in named)
    (how_to,) = (section["How-to"] for section in config.nav if "How-to" in section)
    how_to.extend(more)
    config.nav = _as_pages(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """A page and its pictures for each notebook, two executed at a time where outputs are not at hand.

    With ``FMAML_DOCS_OUTPUTS=0`` none is executed: quick, while pages are written.
    """
    for path in sorted(RESULTS.glob("*.json")):  # pages link to them
        files.append(File.generated(config, f"measured/{path.name}", abs_src_path=str(path)))
    make = source if os.environ.get("FMAML_DOCS_OUTPUTS") == "0" else executed
    with ThreadPoolExecutor(2) as pool:
        for name, notebook in zip(names(), pool.map(make, names()), strict=True):
            text, pictures = as_markdown(name, notebook)
            files.append(File.generated(config, f"tutorials/{name}.md", content=text))
            for picture, content in pictures.items():
                files.append(File.generated(config, f"tutorials/{picture}", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to notebooks and result files lead to the site; a comment with a section's name becomes its settings.

    On a page of the reference with sections, the objects are one level below them.
    """
    markdown = re.sub(r"\]\(([\w./]+)\.ipynb(#[\w-]+)?\)", r"](\1.md\2)", markdown)
    markdown = markdown.replace("](../benchmarks/results/", "](measured/")
    markdown = re.sub(r"(?<=\d) %(?!\w)", "\u00a0%", markdown.replace(" ± ", "\u00a0±\u00a0"))
    if "\n## " in markdown:
        markdown = OBJECT.sub(rf"\g<1>{IN_A_SECTION}", markdown)
    if page.file.src_uri == "settings.md":
        markdown = LISTED.sub(lambda found: experiments() if found[1] == "experiments" else section(found[1]), markdown)
    return markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A table is in a box that scrolls and takes the keyboard's focus; an empty cell is no heading."""
    html = re.sub(r"<th( [^>]*)?></th>", r"<td\1></td>", html)
    box = r'<div class="scroll" role="group" aria-label="Table" tabindex="0">\g<0></div>'
    return re.sub(r"<table>.*?</table>", box, html, flags=re.DOTALL)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """The search has a name for screen readers."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def _as_pages(nav: Any) -> Any:
    if isinstance(nav, list):
        return [_as_pages(item) for item in nav]
    if isinstance(nav, dict):
        return {title: _as_pages(item) for title, item in nav.items()}
    return nav.replace(".ipynb", ".md")
