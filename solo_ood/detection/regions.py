"""Where in an exemplar what matters is, patch by patch: from its mask, or from boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from solo_ood.data.images import Split, read_csv
from solo_ood.data.rare import RareDefinition
from solo_ood.embedding.extract import covered
from solo_ood.errors import message
from solo_ood.exemplars import rows_of

SIDES = ("left", "top", "right", "bottom")
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Regions:
    """What matters in the images of a split, seen on the grid of their patches.

    Attributes:
        split: N images.
        size: H and W (pixels) to which they were scaled and cut.
        grid: h and w of their patches.
        boxes: around what matters, by image; ``None`` = the pixels of the classes in its mask.
    """

    split: Split
    size: tuple[int, int]
    grid: tuple[int, int]
    boxes: dict[Path, list[Box]] | None = None

    def of(self, definition: RareDefinition, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return (E, h * w) float32: the share of each patch of ``rows`` (E,) that matters."""
        inside = [self._inside(row, definition.class_ids) for row in rows]
        areas = [covered(image, self.size, Image.Resampling.BOX) for image in inside]
        pixels = torch.from_numpy(np.stack([np.asarray(area) for area in areas])) / 255
        return F.adaptive_avg_pool2d(pixels, self.grid).flatten(1).numpy()

    def _inside(self, row: int, class_ids: Sequence[int]) -> Image.Image:
        """Return what matters as white on black, in the image's own size."""
        if self.boxes is None:
            with Image.open(self.split.masks[row]) as mask:
                inside = np.isin(np.asarray(mask), class_ids)
            return Image.fromarray(inside.astype(np.uint8) * 255)
        path = self.split.paths[row]
        with Image.open(path) as image:
            drawn = Image.new("L", image.size)
        for left, top, right, bottom in self.boxes[path]:
            # Pillow fills the right and lower edge, too.
            ImageDraw.Draw(drawn).rectangle((left, top, right - 1, bottom - 1), fill=255)
        return drawn


def read_boxes(path: Path, split: Split) -> dict[Path, list[Box]]:
    """Return the boxes of a CSV of ``path,left,top,right,bottom`` (pixels), a line for each box.

    Args:
        path: the CSV; its paths are (ends of) those of ``split``.
        split: the images they are in.

    Raises:
        ValueError: for a missing column, an image that is not in the split, or a box that is empty
            or not inside its image.
    """
    boxes: dict[Path, list[Box]] = {}
    for line, row in enumerate(read_csv(path, ("path", *SIDES)), 2):
        (number,) = rows_of([row["path"]], len(split), split.paths, f"{path.name}, line {line}")
        image = split.paths[number]
        with Image.open(image) as opened:
            width, height = opened.size
        try:
            left, top, right, bottom = (float(row[side]) for side in SIDES)
        except ValueError:
            left, top, right, bottom = (float("nan"),) * 4
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(
                message(
                    f"{path.name}, line {line}",
                    expected=f"0 <= left < right <= {width} and 0 <= top < bottom <= {height}",
                    got=", ".join(f"{side} {row[side]}" for side in SIDES),
                    remedy=f"Give the box in pixels of {image.name}.",
                )
            )
        boxes.setdefault(image, []).append((left, top, right, bottom))
    return boxes
