"""``solo-ood explore`` in a real browser: a box is drawn, keys answer, the ranking changes."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import complaints, needs_browser, opened
from explored import RED, Served, is_rare, rank, served, write_pictures
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = needs_browser
TOP = ["--top", "6", "--keep-patches"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rank(write_pictures(tmp_path_factory.mktemp("explored") / "data"), *TOP, "--audit", "6")


@pytest.fixture(scope="module")
def server(out: Path) -> Iterator[Served]:
    with served(out) as server:
        yield server


@pytest.fixture(scope="module")
def browser(server: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with opened(server.address, tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def page(browser: Chrome) -> Iterator[Chrome]:
    """A browser that shows the page anew; whatever a test did, its console has to be empty."""
    browser.get(browser.current_url.partition("?")[0])
    until(browser, lambda: tiles(browser))
    yield browser
    assert complaints(browser) == []


def until(page: Chrome, holds) -> None:
    WebDriverWait(page, 60, 0.1).until(lambda _: holds())


def tiles(page: Chrome) -> list[str]:
    return [one.text for one in page.find_elements(By.CSS_SELECTOR, "#list .path")]


def said(page: Chrome, place: str = "said") -> str:
    return page.find_element(By.ID, place).text


def press(page: Chrome, *keys: str) -> None:
    ActionChains(page).send_keys(*keys).perform()


def show(page: Chrome, view: str) -> None:
    before = page.find_element(By.CSS_SELECTOR, "#list li")
    Select(page.find_element(By.NAME, "view")).select_by_value(view)
    until(page, lambda: before not in page.find_elements(By.CSS_SELECTOR, "#list li"))


def tile(page: Chrome, name: str):
    return page.find_element(
        By.XPATH, f"//ul[@id='list']/li[.//span[@class='path' and .='{name}']]"
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def chosen(out: Path) -> list[str]:
    return [row["path"] for row in rows(out / "ranking.csv") if row["state"] == "chosen"]


def test_the_list_is_shown_with_thumbnails_and_the_token_leaves_the_address(page, out):
    assert tiles(page) == chosen(out) and "token" not in page.current_url
    widths = "return [...document.querySelectorAll('#list img')].map(i => i.naturalWidth)"
    until(page, lambda: min(page.execute_script(widths)) == 64)
    show(page, "all")
    assert len(tiles(page)) == 40
    assert page.find_element(By.ID, "told").text == "40 of 40 pictures"
    assert (
        tile(page, "b/005.png").find_element(By.TAG_NAME, "img").get_attribute("loading") == "lazy"
    )
    assert "rank" in tile(page, "b/005.png").text
    own = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert own and all(name.startswith(("http://127.0.0.1:", "data:")) for name in own)


def test_pictures_are_filtered_by_clip_score_and_path(page, out):
    show(page, "all")
    told = page.find_element(By.ID, "told")
    Select(page.find_element(By.NAME, "clip")).select_by_value("b")
    until(page, lambda: told.text == "20 of 40 pictures")
    assert {name[0] for name in tiles(page)} == {"b"}
    scores = sorted(float(row["score"]) for row in rows(out / "ranking.csv") if row["clip"] == "b")
    page.find_element(By.NAME, "low").send_keys(f"{(scores[14] + scores[15]) / 2:.9f}")
    until(page, lambda: told.text == "5 of 40 pictures")
    page.find_element(By.NAME, "words").send_keys("003")
    until(page, lambda: "5 of" not in told.text)
    page.find_element(By.CSS_SELECTOR, "#filters button[type=reset]").click()
    until(page, lambda: tiles(page) == chosen(out))


def test_a_box_keys_undo_and_ranking_again(page, out, tmp_path):
    """The whole story, and the list is the one that ``rank --feedback`` makes of the same sheet."""
    first = chosen(out)
    show(page, "all")
    turned = tile(page, "b/005.png")  # stored turned: a box counts as the picture is shown
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", turned)
    turned.find_element(By.CLASS_NAME, "zoom").click()
    image = page.find_element(By.CSS_SELECTOR, "#place img")
    until(page, lambda: page.execute_script("return arguments[0].naturalWidth", image) == 64)
    size, scale = image.size, image.size["width"] / 64
    assert size["height"] == pytest.approx(48 * scale, abs=2)
    left, top, right, bottom = (round(side * scale) for side in RED)
    ActionChains(page).move_to_element_with_offset(
        image, left - size["width"] // 2, top - size["height"] // 2
    ).click_and_hold().move_by_offset(right - left, bottom - top).release().perform()
    until(page, lambda: "b/005.png: yes, 1 box" in said(page, "said-large"))
    (row,) = rows(out / "explored-answers.csv")  # saved at once
    assert (row["path"], row["rare"]) == ("b/005.png", "yes")
    sides = [float(row[side]) for side in ("left", "top", "right", "bottom")]
    assert sides == pytest.approx(RED, abs=1)
    (box,) = rows(out / "explored-boxes.csv")
    assert box == {key: row[key] for key in box}
    yes = page.find_element(By.CSS_SELECTOR, "dialog [data-rare=yes]")
    assert yes.get_attribute("aria-pressed") == "true"

    press(page, Keys.ESCAPE)
    zoom = tile(page, "b/005.png").find_element(By.CLASS_NAME, "zoom")
    assert page.switch_to.active_element == zoom
    names = tiles(page)
    others = [name for name in names if not is_rare(int(name[2:5]))][:2]
    for name, key in ((others[0], "n"), (others[1], "y")):
        number = names.index(name)
        tile(page, name).find_element(By.CLASS_NAME, "zoom").send_keys(key)
        until(page, lambda name=name: said(page).startswith(f"{name}: "))
        following = tile(page, names[number + 1]).find_element(By.CLASS_NAME, "zoom")
        until(page, lambda following=following: page.switch_to.active_element == following)
    assert page.find_element(By.ID, "counts").text.startswith("2 yes · 1 no · 1 box")
    press(page, "u")
    until(page, lambda: said(page).startswith(f"Undone. {others[1]}: no answer"))
    answers = {row["path"]: row["rare"] for row in rows(out / "explored-answers.csv")}
    assert answers == {"b/005.png": "yes", others[0]: "no"}

    again = page.find_element(By.ID, "rerank")
    until(page, again.is_enabled)
    again.click()
    until(page, lambda: "Ranked again by exemplar-regions" in said(page))
    assert tiles(page) != first and all(is_rare(int(name[2:5])) for name in tiles(page)[:5])
    assert page.find_elements(By.CSS_SELECTOR, "#list .mark:not(.own)")  # why they are listed
    until(page, lambda: "are written" in said(page))
    assert chosen(out) == tiles(page)
    found = rows(out / "ranking.csv")
    same = tmp_path / "same"
    rank(out.parent / "data", *TOP, "--feedback", f"{out / 'explored-answers.csv'}",
         "--out", f"{same}")  # fmt: skip
    assert rows(same / "ranking.csv") == found


def test_boxes_are_added_set_and_removed_by_the_keyboard_alone(page, out):
    name = tiles(page)[0]
    tile(page, name).find_element(By.CLASS_NAME, "zoom").send_keys(Keys.ENTER)
    until(page, page.find_element(By.ID, "large").is_displayed)
    press(page, "b")
    until(page, lambda: "1 box" in said(page, "said-large"))
    active = page.switch_to.active_element
    assert active.get_attribute("data-side") == "0 left" and active.get_attribute("value") == "16"
    active.send_keys(Keys.CONTROL, "a", Keys.NULL, "7", Keys.TAB)
    kept = lambda: [row for row in rows(out / "explored-boxes.csv") if row["path"] == name]  # noqa: E731
    until(page, lambda: [row["left"] for row in kept()] == ["7"])
    wrong = page.find_element(By.CSS_SELECTOR, "[data-side='0 right']")
    wrong.send_keys(Keys.CONTROL, "a", Keys.NULL, "900", Keys.TAB)
    until(page, lambda: "right <= 64" in said(page, "said-large"))
    assert kept()[0]["right"] == "48"  # as it was
    assert ["400" in one for one in complaints(page)] == [True]
    page.find_element(By.CSS_SELECTOR, "#boxes button").send_keys(Keys.ENTER)
    until(page, lambda: not kept())
    page.find_element(By.ID, "close").send_keys(Keys.ENTER)
    assert not page.find_element(By.ID, "large").is_displayed()


def test_the_audit_sheet_is_filled_in_without_the_place_in_the_list(page, out, capsys):
    show(page, "audit")
    names = [row["path"] for row in rows(out / "audit.csv")]
    assert tiles(page) == names
    text = page.find_element(By.ID, "list").text
    assert "rank" not in text and "score" not in text
    page.find_element(By.CSS_SELECTOR, "#list .zoom").send_keys(Keys.ENTER)
    for name in names:
        until(page, lambda name=name: page.find_element(By.ID, "large-title").text == name)
        press(page, "y" if is_rare(int(name[2:5])) else "n")
    until(page, lambda: "audit: 6 of 6" in page.find_element(By.ID, "counts").text)
    words = {row["path"]: row["rare"] for row in rows(out / "audit.csv")}
    assert words == {name: "yes" if is_rare(int(name[2:5])) else "no" for name in names}
    rank(out.parent / "data", *TOP, "--audited", f"{out / 'audit.csv'}")
    assert "audit of 6 of 40 images" in capsys.readouterr().out
