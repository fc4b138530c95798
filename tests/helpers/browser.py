"""A real Chromium that opens a page from its file, with Debian's or Google's own driver."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
DRIVER = shutil.which("chromedriver") or ""
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium with its driver on this machine: make browser"
)
WIDTH = 1280  # pixels of the window


@contextmanager
def opened(page: Path | str, profile: Path) -> Iterator[Chrome]:
    """Yield a browser that shows ``page``, a file or an address.

    Its profile is kept in the folder ``profile``.
    """
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--window-size={WIDTH},900")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(DRIVER))
    try:
        driver.get(page if isinstance(page, str) else page.as_uri())
        yield driver
    finally:
        driver.quit()


def complaints(driver: Chrome) -> list[str]:
    """Return what the console says, whatever its level."""
    return [entry["message"] for entry in driver.get_log("browser")]


def pictures(driver: Chrome) -> list[tuple[str, int]]:
    """Return the text of each picture and the width of its file in pixels; 0 = not shown."""
    script = "return [...document.images].map(i => [i.alt, i.naturalWidth])"
    return driver.execute_script(script)
