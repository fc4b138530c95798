"""The report of ``solo-ood detect`` in a real browser: it sorts, filters, enlarges, and is safe."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import WIDTH, complaints, needs_browser, opened, pictures
from PIL import Image
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from solo_ood.cli import main

pytestmark = needs_browser

RUNS = "window.hacked=1"
RARE = f"<script>{RUNS}<script>"
FILES = [
    f'"><img src=x onerror={RUNS}>.png',
    f"<svg onload={RUNS}>.png",
    f"<!--<script>{RUNS}.png",
    f"' onmouseover={RUNS} x='.png",
    "{{ 7 * 7 }} $a$ | `b`.png",
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page alone, of 48 pictures whose names are program text or no UTF-8."""
    root = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    for name, n in (("car", 36), (RARE, 12)):
        folder = root / "data" / name
        folder.mkdir(parents=True)
        files = [*FILES, *(f"{number}.png" for number in range(n - len(FILES)))]
        for file in files:
            picture = rng.integers(0, 60, (24, 40, 3), dtype=np.uint8)
            picture[..., 0] += 180 * (name == RARE)
            Image.fromarray(picture).save(folder / file)
    os.rename(os.fsencode(folder / "0.png"), os.fsencode(folder) + b"/caf\xe9.png")
    out = root / "out"
    main(
        ["detect", f"{root / 'data'}", "--rare", RARE, "--cross-fit", "--embedder"]
        + ["resnet18:random", "--detectors", "knn", "exemplar", "random", "--sizes", "16", "all"]
        + ["--image-size", "32", "--repeats", "2", "--draws", "2", "--n-exemplars", "4"]
        + ["--bootstrap", "20", "--num-workers", "0", "--cache", f"{root / 'cache'}"]
        + ["--out", f"{out}", "--poster"]
    )
    alone = root / "elsewhere" / "report.html"
    alone.parent.mkdir()
    shutil.copy(out / "report.html", alone)
    return alone


@pytest.fixture(scope="module")
def browser(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with opened(report, tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def page(browser: Chrome) -> Iterator[Chrome]:
    """A browser that shows the page anew; whatever a test did, its console has to be empty."""
    browser.refresh()
    yield browser
    assert complaints(browser) == []
    assert browser.execute_script("return window.hacked") is None


def rows(page: Chrome) -> list[list[str]]:
    """The cells of the first table's rows that are in sight."""
    script = (
        "return [...document.querySelector('table').tBodies[0].rows].filter(r => !r.hidden)"
        ".map(r => [...r.cells].map(c => c.firstChild.textContent.trim()))"
    )
    return page.execute_script(script)


def head(page: Chrome, name: str):
    """The head of the first table's column ``name``, and the number of the column."""
    for number, cell in enumerate(page.find_element(By.TAG_NAME, "table").find_elements(
        By.TAG_NAME, "th"
    )):  # fmt: skip
        if cell.text.strip() == name:
            return cell, number
    raise AssertionError(name)


def test_page_shows_every_picture_and_loads_nothing_from_elsewhere(page):
    shown = pictures(page)
    assert len(shown) == 2 + 3 * 2 * 12 and min(width for _, width in shown) > 0
    figures = [width for text, width in shown if text.startswith("resnet18: ")]
    assert len(figures) == 2 and min(figures) > 300
    asked = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in asked if not name.startswith("data:")] == []
    last = head(page, "FPR95")[0]
    assert 600 < last.rect["x"] + last.rect["width"] < WIDTH - 15  # in sight
    lines = page.find_elements(By.CSS_SELECTOR, ".conclusion li")
    assert len(lines) == 3 and "AUROC" in lines[0].text and RARE in lines[0].text
    terms = [one.text for one in page.find_elements(By.CSS_SELECTOR, "dl.glossary dt")]
    assert {"Lift", "AUROC", "ood_score", "p", "N"} <= set(terms)


def test_a_column_sorts_by_its_head_by_mouse_and_by_keyboard(page):
    for name in ("AUROC", "Lift", "N"):
        cell, number = head(page, name)
        assert cell.get_attribute("aria-sort") == "none"
        cell.find_element(By.TAG_NAME, "button").click()
        assert cell.get_attribute("aria-sort") == "descending"
        values = [row[number] for row in rows(page)]
        known = [float(value) for value in values if value != "–"]
        assert known == sorted(known, reverse=True) and len(set(known)) > 1
        assert values[: len(known)] == [value for value in values if value != "–"]
        cell.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
        assert cell.get_attribute("aria-sort") == "ascending"
        values = [row[number] for row in rows(page)]
        assert [float(value) for value in values if value != "–"] == sorted(known)
        assert (values[-1] == "–") == (name == "N")  # what is not known stays at the end
    cell, number = head(page, "Detector")
    cell.find_element(By.TAG_NAME, "button").send_keys(Keys.SPACE)
    assert cell.get_attribute("aria-sort") == "ascending"
    names = [row[number] for row in rows(page)]
    assert names == sorted(names) and len(set(names)) == 3
    assert head(page, "N")[0].get_attribute("aria-sort") == "none"


def test_rows_are_filtered_by_words_and_by_the_values_of_a_column(page):
    form = page.find_element(By.CSS_SELECTOR, "form.filters")
    told = form.find_element(By.TAG_NAME, "output")
    assert told.text == "20 of 20 rows"
    form.find_element(By.NAME, "words").send_keys("KNN resnet")
    assert {row[2] for row in rows(page)} == {"knn"} and told.text == "8 of 20 rows"
    form.find_element(By.NAME, "words").send_keys(" forest")
    assert rows(page) == [] and told.text == "0 of 20 rows"
    form.find_element(By.NAME, "words").send_keys(Keys.ENTER)  # sends nothing anywhere
    form.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    assert told.text == "20 of 20 rows" == f"{len(rows(page))} of 20 rows"
    choices = {
        one.find_element(By.XPATH, "..").text.split("\n")[0]: Select(one)
        for one in form.find_elements(By.TAG_NAME, "select")
    }
    assert [one.text for one in choices["Detector"].options] == ["all", "knn", "exemplar", "random"]
    choices["Detector"].select_by_visible_text("exemplar")
    choices["p"].select_by_visible_text("0.8")
    assert [(row[2], row[4]) for row in rows(page)] == [("exemplar", "0.8")] * 2
    choices["Rare"].select_by_value(RARE)
    assert told.text == "2 of 20 rows"


def test_a_thumbnail_is_enlarged_with_its_path_and_score(page):
    dialog = page.find_element(By.TAG_NAME, "dialog")
    items = page.find_elements(By.CSS_SELECTOR, ".gallery li")
    assert len(items) == 3 * 2 * 12
    for item in (items[0], items[-1]):  # the last one's picture is on the page before it
        button, image = (item.find_element(By.TAG_NAME, tag) for tag in ("button", "img"))
        path = item.find_element(By.CLASS_NAME, "path").text
        assert path.endswith(".png") and "ood_score " in item.text
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})", item)
        for enlarge in (button.click, lambda button=button: button.send_keys(Keys.ENTER)):
            assert not dialog.is_displayed()
            enlarge()
            large = dialog.find_element(By.TAG_NAME, "img")
            assert large.rect["width"] > 2 * image.rect["width"]
            assert large.get_attribute("src") == image.get_attribute("src")
            assert path in dialog.text and "ood_score " in dialog.text
            ActionChains(page).send_keys(Keys.ESCAPE).perform()
        assert page.switch_to.active_element == button
    figure = page.find_element(By.CSS_SELECTOR, "figure .zoom")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
    figure.click()
    assert "scores of the test images" in dialog.text
    dialog.find_element(By.XPATH, "./button").click()
    assert not dialog.is_displayed()


def test_a_point_says_which_image_it_is(page):
    tip = page.find_element(By.ID, "tip")
    plane = page.find_element(By.CSS_SELECTOR, ".scatter .panels svg")
    points = plane.find_elements(By.CSS_SELECTOR, "[data-point]")
    assert len(points) == 48 and not tip.is_displayed()
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", plane)
    ActionChains(page).move_to_element(points[-1]).perform()
    assert tip.is_displayed() and tip.text.startswith(f"rare: {RARE}\n{RARE}/")
    assert "ood_score of " in tip.text and tip.text.split("\n")[1].endswith(".png")
    first = tip.text
    ActionChains(page).move_to_element(page.find_element(By.TAG_NAME, "figcaption")).perform()
    assert not tip.is_displayed()
    page.execute_script("arguments[0].focus()", plane)
    seen = set()
    for _ in points:
        ActionChains(page).send_keys(Keys.ARROW_RIGHT).perform()
        seen.add(tip.text)
    assert len(seen) == 48 and first in seen  # every image, by the keyboard alone
    texts = "\n".join(seen)
    assert f"car/{FILES[0]}" in texts and "ood_score" in texts and r"caf\xe9.png" in texts
    ActionChains(page).send_keys(Keys.ESCAPE).perform()
    assert not tip.is_displayed()


def test_names_that_are_program_text_are_shown_and_do_not_run(page):
    text = page.find_element(By.TAG_NAME, "body").text
    assert f"Rare: {RARE}" in text and r"caf\xe9.png" in page.page_source
    assert page.find_elements(By.CSS_SELECTOR, "[onerror], [onload], [onmouseover], [src=x]") == []
    for image in page.find_elements(By.CSS_SELECTOR, ".gallery button")[:12]:
        ActionChains(page).move_to_element(image).perform()
    # Were a name to get past the template, the page's own policy would still not let it run.
    page.execute_script(f"document.body.innerHTML += '<img src=x: onerror={RUNS}>'")
    page.execute_script(
        f"const s = document.createElement('script'); s.textContent = '{RUNS}';"
        "document.body.append(s)"
    )
    assert page.execute_script("return window.hacked") is None
    told = complaints(page)
    assert told and all("Content Security Policy" in one for one in told)
