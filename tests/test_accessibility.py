"""Every page in a real browser, at two widths: axe-core finds no violation of WCAG 2, level A or AA.

The pages are those of the site, of a report, of a comparison and of predictions, and the demo. Needs Chromium, and is
skipped where there is none.
"""

import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from fmaml.cli.main import main

sys.path.insert(0, str(Path(__file__).parent / "demo"))

from demo_server import serving, untrained_classifiers

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
VIEWS = [(1280, "light"), (390, "dark")]
EVERY_VIEW = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
ALTERNATELY = [VIEWS[:1], VIEWS[1:]]  # for the site's pages, which are many and alike
# One style gives all pages of the site their colours, and to compare those takes longest. Each kind of page is here.
COLOURED = ("404.html", "index.html", "photos.html", "api/losses.html", "tutorials/sinusoid.html")
# The site's scheme is chosen by its own script. Folded source code is long, and looks like the other code; of a
# hundred words of code in one colour, one is enough.
PREPARE = """scheme => {
    if (document.body.dataset.mdColorScheme)
        document.body.dataset.mdColorScheme = scheme === "dark" ? "slate" : "default";
    document.querySelectorAll("details.mkdocstrings-source").forEach(folded => folded.remove());
    const seen = new Set();
    document.querySelectorAll("pre span").forEach(word => {
        if (seen.has(word.className)) word.replaceWith(...word.childNodes);
        seen.add(word.className);
    });
    document.querySelectorAll("pre").forEach(code => code.normalize());
}"""
AXE = """([levels, contrast]) => axe.run(document, {
    runOnly: levels, resultTypes: ["violations"], rules: {"color-contrast": {enabled: contrast}}
}).then(found => found.violations
    .flatMap(rule => rule.nodes.map(node => `${rule.id}: ${node.target}: ${node.failureSummary}`)))"""
CUT_OFF = """() => [...document.querySelectorAll("pre > code")]
    .filter(code => !code.closest(".language-text") && code.scrollWidth > code.clientWidth + 1)
    .map(code => `cut off: ${code.textContent.slice(0, 80)}`)"""


class Quiet(SimpleHTTPRequestHandler):
    """A server that logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """A page of one browser, with axe-core in each document."""
    script = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(bypass_csp=True)
        page.set_default_timeout(120_000)  # milliseconds; other processes may have the machine
        page.add_init_script(script)
        yield page
        browser.close()


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The address of the site, served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def violations(
    page: Any, address: str, views: Sequence[tuple[int, str]], contrast: bool = True
) -> dict[str, list[str]]:
    """The violations in the page at this address, by width and colour scheme; and code that is cut off."""
    found: dict[str, list[str]] = {}
    page.goto(address)
    page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
    for width, scheme in views:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(PREPARE, scheme)
        wrong = page.evaluate(AXE, [LEVELS, contrast]) + page.evaluate(CUT_OFF)
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wrong.append("wider than the window")
        if wrong:
            found[f"{width} {scheme}"] = wrong
    return found


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_pages_of_the_site(page, address, site, every):
    """Each page in one of two views, and the colours of each kind; or every page in both, with its colours."""
    names = sorted(str(file.relative_to(site)) for file in site.rglob("*.html"))
    assert len(names) > 30
    assert {*COLOURED} <= {*names}
    found = {
        name: violations(page, f"{address}/{name}", VIEWS if every else views, every or name in COLOURED)
        for name, views in zip(names, cycle(ALTERNATELY), strict=False)
    }
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("word", ["FMAML_DATA", "first_order"])
def test_the_search_finds_code_beside_punctuation(page, address, word):
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"{address}/index.html", wait_until="networkidle")
    assert page.get_by_role("dialog", name="Search").count() == 1
    query, found = page.locator("input[name=query]"), page.locator(".md-search-result__item")
    for _ in range(60):  # the index may not be there yet when the word is typed
        query.click()
        query.fill("")
        query.press_sequentially(word)
        page.wait_for_timeout(1000)  # milliseconds
        if found.count():
            break
    assert found.count()


def test_a_report_a_comparison_and_predictions(page, tmp_path, trained, characters):
    compared, predicted, adapted = tmp_path / "compared.html", tmp_path / "predicted.html", tmp_path / "a.safetensors"
    assert main(["compare", str(trained), str(trained), "--html", str(compared)]) == 0
    assert main(["adapt", str(trained), "--support", str(characters / "support"), "--out", str(adapted)]) == 0
    assert main(["predict", str(adapted), str(characters / "new"), "--html", str(predicted)]) == 0
    for file in (trained / "report.html", compared, predicted):
        assert violations(page, file.as_uri(), EVERY_VIEW) == {}
        assert page.locator("main").count() == page.locator("header").count() == 1


def test_the_demo(page, tmp_path):
    with serving(untrained_classifiers(tmp_path)) as server:
        assert violations(page, server.url, EVERY_VIEW) == {}
