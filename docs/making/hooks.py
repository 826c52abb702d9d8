"""What mkdocs asks of this folder while it builds the site: tutorials with their outputs, and lists of settings."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

from notebooks import as_markdown, executed, names, source

RESULTS = Path(__file__).parents[2] / "benchmarks/results"
LISTED = re.compile(r"^<!-- fmaml ls (\w+) -->$", re.MULTILINE)


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
    """Links to notebooks and result files lead to the site; comments such as ``fmaml ls train`` become their output."""
    markdown = re.sub(r"\]\(([\w./]+)\.ipynb(#[\w-]+)?\)", r"](\1.md\2)", markdown)
    markdown = markdown.replace("](../benchmarks/results/", "](measured/")
    markdown = re.sub(r"(?<=\d) %(?!\w)", "\u00a0%", markdown.replace(" ± ", "\u00a0±\u00a0"))
    return LISTED.sub(lambda found: f"```text\n{_listing(found[1])}\n```", markdown)


def _listing(section: str) -> str:
    command = [sys.executable, "-m", "fmaml", "ls", section]
    said = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True).stdout
    return said.strip("\n")


def _as_pages(nav: Any) -> Any:
    if isinstance(nav, list):
        return [_as_pages(item) for item in nav]
    if isinstance(nav, dict):
        return {title: _as_pages(item) for title, item in nav.items()}
    return nav.replace(".ipynb", ".md")
