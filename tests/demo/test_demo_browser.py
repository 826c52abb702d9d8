"""The demo's page in a real Chromium, which must be installed: pip install -e '.[browser]', then `pytest -m slow`."""

import shutil
from pathlib import Path

import pytest
from demo_server import serving, untrained_classifiers
from PIL import Image

pytestmark = pytest.mark.slow

GLYPHS = [  # strokes, in parts of the paper
    [[(0.2, 0.2), (0.8, 0.2), (0.8, 0.8)]],
    [[(0.5, 0.1), (0.5, 0.9)]],
    [[(0.2, 0.8), (0.35, 0.2), (0.5, 0.6), (0.65, 0.2), (0.8, 0.8)]],
]
DROP = """(box, [name, bytes]) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(bytes)], name));
    box.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
}"""
CONTRAST = """element => {
    const paint = document.createElement("canvas").getContext("2d");
    const light = colour => {
        paint.fillStyle = colour;
        paint.fillRect(0, 0, 1, 1);
        const linear = [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3).map(byte => (byte / 255) ** 2.2);
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05;
    };
    let ground = element;
    while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
    const pair = [light(getComputedStyle(element).color), light(getComputedStyle(ground).backgroundColor)];
    return Math.max(...pair) / Math.min(...pair);
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(untrained_classifiers(tmp_path_factory.mktemp("models"))) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports]

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "needs Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, server):
    """Opens the page with options of the browser; at the end no other host was asked, and nothing went wrong."""
    asked, wrong, pages = set(), [], []

    def open_page(**options):
        page = browser.new_page(**options)
        page.set_default_timeout(300_000)  # milliseconds, as other processes may have the machine
        pages.append(page)
        page.on("request", lambda request: asked.add(request.url.split("/")[2]))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(server.url)
        page.wait_for_selector("#photo .album", state="attached")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert asked == {server.hosts[0]}
    assert [line for line in wrong if "400 (Bad Request)" not in line] == []


def draw(page, canvas, strokes) -> None:
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for stroke in strokes:
        points = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=4)
        page.mouse.up()


def draw_all(page) -> None:
    for i, strokes in enumerate(GLYPHS):
        draw(page, page.locator("#draw .classes canvas").nth(i), strokes)


def verdict(page, tab: str, words: str) -> list[str]:
    """Waits for a verdict that begins with these words; returns the rows of bars."""
    page.wait_for_function(
        "([q, words]) => document.querySelector(q).textContent.startsWith(words)", arg=[f"#{tab} .verdict", words]
    )
    return page.locator(f"#{tab} .bars li").all_inner_texts()


@pytest.mark.parametrize("again", range(3))
def test_a_drawing_is_named_with_bars_before_and_after(open_page, again):
    page = open_page()
    verdict(page, "draw", "Draw at least two classes.")
    draw_all(page)
    verdict(page, "draw", "Now draw one of them again.")
    draw(page, page.locator("#draw .query .pad canvas"), GLYPHS[again])
    rows = verdict(page, "draw", f"Class {again + 1}, ")
    assert [row.count("%") for row in rows] == [2, 2, 2]
    assert page.locator("#draw .best .label").inner_text() == f"Class {again + 1}"
    assert page.locator("#draw .seen").evaluate("it => [it.width, it.height]") == [28, 28]
    page.locator("#draw .query .clear").click()
    assert verdict(page, "draw", "Now draw one of them again.") == []


def test_a_drawing_far_from_all_is_none_of_these(open_page, server, monkeypatch):
    """With a limit of 0, which refuses whatever is not the same drawing."""
    classifier = server.classifiers["draw"]
    classifier._adapted.cache_clear()  # of the tests before, without a limit
    monkeypatch.setitem(classifier.learner.metadata, "calibration", {"temperature": 1.0, "distances": [0.0, 0.0]})
    page = open_page()
    draw_all(page)
    draw(page, page.locator("#draw .query .pad canvas"), [[(0.1, 0.9), (0.9, 0.1)], [(0.1, 0.1), (0.9, 0.9)]])
    rows = verdict(page, "draw", "None of these, ")
    classifier._adapted.cache_clear()
    assert [row.count("%") for row in rows] == [2, 2, 2, 1]
    assert page.locator("#draw .best .label").inner_text() == "None of these"


def test_classes_are_added_and_removed(open_page):
    page = open_page()
    pads, add = page.locator("#draw .classes .pad"), page.locator("#draw .add")
    while add.is_enabled():
        add.click()
    assert pads.count() == 10
    draw_all(page)
    pads.nth(0).locator(".remove").click()
    draw(page, page.locator("#draw .query .pad canvas"), GLYPHS[2])
    assert len(verdict(page, "draw", "Class 2, ")) == 2
    while pads.nth(0).locator(".remove").is_enabled():
        pads.nth(0).locator(".remove").click()
    assert pads.count() == 2


def test_the_keyboard_draws_and_changes_tabs(open_page):
    page = open_page()
    for i, key in enumerate(("ArrowLeft", "ArrowUp")):
        page.locator("#draw .classes canvas").nth(i).focus()
        for _ in range(8):
            page.keyboard.press(f"Shift+{key}")
    page.locator("#draw .query .pad canvas").focus()
    for _ in range(8):
        page.keyboard.press("Shift+ArrowUp")
    verdict(page, "draw", "Class 2, ")
    page.locator("#tab-draw").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#photo").is_visible()
    assert page.locator("#draw").is_hidden()


def test_photographs_are_chosen_and_dropped(open_page, tmp_path):
    files = {colour: tmp_path / f"{colour}.png" for colour in ("red", "blue")}
    for colour, file in files.items():
        Image.new("RGB", (80, 60), colour).save(file)
    page = open_page()
    page.click("#tab-photo")
    albums = page.locator("#photo .classes .album")
    albums.nth(0).locator("[type=file]").set_input_files([files["red"], files["red"]])
    drop(albums.nth(1), files["blue"])
    for i, colour in enumerate(files):
        albums.nth(i).locator(".name").fill(colour)
    drop(page.locator("#photo .query .album"), files["blue"])
    rows = verdict(page, "photo", "blue, ")
    assert [row.count("%") for row in rows] == [1, 1]
    assert "By chance: 50\u00a0%" in page.locator("#photo .note").inner_text()
    assert albums.nth(0).locator(".photo").count() == 2

    drop(page.locator("#photo .query .album"), files["red"])
    verdict(page, "photo", "red, ")
    assert page.locator("#photo .query .photo").count() == 1
    albums.nth(1).locator(".photo").click()
    verdict(page, "photo", "Drop photographs into at least two classes.")


def drop(box, file: Path) -> None:
    box.evaluate(DROP, [file.name, list(file.read_bytes())])


def test_a_file_that_is_no_image_is_named(open_page, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    page = open_page()
    page.click("#tab-photo")
    drop(page.locator("#photo .album").first, tmp_path / "notes.txt")
    problem = page.locator("#photo .problem")
    problem.wait_for()
    assert problem.inner_text().startswith("notes.txt: not an image that can be read; give a PNG")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_the_page_fits_and_is_readable(open_page, scheme, width):
    page = open_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    draw_all(page)
    draw(page, page.locator("#draw .query .pad canvas"), GLYPHS[0])
    verdict(page, "draw", "Class ")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    texts = page.locator("h1, h2, p, [role=tab], footer, button, .label, em").all()
    ratios = {text.inner_text(): text.evaluate(CONTRAST) for text in texts if text.is_visible() and text.is_enabled()}
    assert len(ratios) > 15
    assert {text: ratio for text, ratio in ratios.items() if ratio < 4.5} == {}
    overflowing = "all => all.filter(it => it.scrollWidth > it.clientWidth + 1).map(it => it.outerHTML)"
    assert page.locator(".bar, .classes, .step, .bars li").evaluate_all(overflowing) == []
