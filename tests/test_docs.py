"""The pages in `docs/`: every link leads somewhere, every public name is in the reference, every tutorial runs."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import children
import pytest

import fmaml

sys.path.insert(0, str(Path(__file__).parent.parent / "docs/making"))

TOP = Path(__file__).parent.parent
DOCS = TOP / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.ipynb"))
PAGES = sorted(
    [TOP / "README.md", TOP / "CONTRIBUTING.md", TOP / "benchmarks/README.md", *DOCS.rglob("*.md"), *TUTORIALS]
)
LINK = re.compile(r"\]\(([^()\s]+)\)")


OF_MODULES = re.findall(r"^::: fmaml\.(\w+\.\w+)$", (DOCS / "api/extend.md").read_text(encoding="utf-8"), re.MULTILINE)


def cells(notebook: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def prose(page: Path) -> str:
    """What is outside of blocks of code."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        text = "\n\n".join("".join(cell["source"]) for cell in cells(page, "markdown"))
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of headings, as mkdocs makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_and_pictures_are_there(page):
    for link in LINK.findall(prose(page)):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in ("only-light", "only-dark") or anchor in anchors(target), link


def test_every_public_name_is_in_the_reference_once():
    named = [
        name for page in (DOCS / "api").glob("*.md") for name in re.findall(r"^::: fmaml\.(\w+)$", prose(page), re.M)
    ]
    assert sorted(named) == sorted(fmaml.__all__)
    assert {f"data.{name}" for name in fmaml.data.__all__} <= set(OF_MODULES)


def test_every_setting_is_listed_with_a_meaning_and_a_link_to_its_function():
    from settings_page import section, without_meaning

    from fmaml.config.registry import TABLE

    listed = re.findall(r"^<!-- (\w+) -->$", (DOCS / "settings.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == ["experiments", "data", "model", "algorithm", "optimizer", "train", "eval"]
    assert without_meaning() == []
    assert section("model").count("Function: [`fmaml.") == len(TABLE["model"])
    folder = section("data").partition("### folder")[2].partition("### ")[0]
    assert (
        '[`data.fit`](#data.folder.fit){#data.folder.fit} one of crop, squeeze, pad; default `"crop"`\n:   Make'
        in folder
    )


@pytest.mark.parametrize("notebook", TUTORIALS, ids=lambda path: path.stem)
def test_the_code_of_a_tutorial_fits(notebook):
    lines = [line for cell in cells(notebook, "code") for line in "".join(cell["source"]).splitlines()]
    assert [line for line in lines if len(line) > 88 and not line.startswith("# Picture: ")] == []


def test_every_picture_is_shown():
    shown = {link.partition("#")[0] for page in PAGES for link in re.findall(r"\]\(([\w/.]+\.png)", prose(page))}
    assert {f"{path.name}" for path in DOCS.glob("*.png")} <= {Path(link).name for link in shown}


@pytest.mark.parametrize("notebook", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_kept_without_outputs(notebook):
    for cell in cells(notebook, "code"):
        assert (cell["outputs"], cell["execution_count"], cell["metadata"]) == ([], None, {}), (
            f"python docs/making/notebooks.py --strip {notebook.stem}"
        )


@pytest.mark.parametrize("notebook", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(notebook):
    """What it prints is kept for the site."""
    ran = children.run([sys.executable, DOCS / "making/notebooks.py", notebook.stem], capture_output=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_site_fetches_nothing(site):
    """No page, style or script of the site names an address from which a browser would load something."""
    for file in site.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)", text)
        assert loaded == [], file.name
    for file in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import\s*)[\"']?(?:https?:)?//", file.read_text(encoding="utf-8")), file.name


def test_links_between_the_pages_of_the_site_lead_somewhere(site):
    ids = {
        file: set(re.findall(r"\bid=\"?([^\"\s>]+)", file.read_text(encoding="utf-8"))) for file in site.rglob("*.html")
    }
    for file in ids:
        if file.name == "404.html":
            continue
        for link in re.findall(r"<a\b[^>]*?\bhref=\"?([^\"\s>]+)", file.read_text(encoding="utf-8")):
            name, _, anchor = link.partition("#")
            if not re.match(r"\w+:", link):
                target = (file.parent / name).resolve() if name else file
                assert target.exists(), f"{file.name}: {link}"
                assert not anchor or target not in ids or anchor in ids[target], f"{file.name}: {link}"


def test_the_reference_shows_an_example_and_the_source_of_every_name(site):
    text = "".join(file.read_text(encoding="utf-8") for file in (site / "api").glob("*.html"))
    for name in sorted({*fmaml.__all__, *OF_MODULES} - {"Params"}):
        part = text.partition(f'id="fmaml.{name}"')[2]
        part = re.split('<h[23] id="fmaml[.]', part)[0]
        assert "&gt;&gt;&gt;" in part, name
        assert "Source code" in part, name
