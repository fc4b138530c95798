"""Regions of exemplars: which patches show what matters, from masks or boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage

from solo_ood.data.bdd import VOID
from solo_ood.data.images import Split
from solo_ood.data.pixels import header, load_ids, upright
from solo_ood.data.rare import RareDefinition
from solo_ood.detection.boxes import Box
from solo_ood.embedding.extract import scale_and_crop
from solo_ood.errors import UserError


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

    def patch_shares(
        self, definition: RareDefinition, rows: Sequence[int] | np.ndarray
    ) -> np.ndarray:
        """Return (E, h * w, 2) float32, the shares of each patch of ``rows`` (E,).

        First what matters, then what does not; void pixels of a mask are neither.

        Raises:
            UserError: for a mask that has not the shape of its image.
        """
        sides = [side for row in rows for side in self._sides(row, definition.class_ids)]
        images = (Image.fromarray(side.astype(np.uint8) * 255) for side in sides)
        areas = [
            np.asarray(scale_and_crop(image, self.size, Image.Resampling.BOX)) for image in images
        ]
        pixels = torch.from_numpy(np.stack(areas)).reshape(len(rows), 2, *self.size) / 255
        return F.adaptive_avg_pool2d(pixels, self.grid).flatten(2).transpose(1, 2).numpy()

    def outlines(
        self, definition: RareDefinition, row: int, most: int = 5
    ) -> list[tuple[float, float, float, float]]:
        """Return left, top, width and height (% of the image) of what matters, the largest first.

        Connected pixels are one outline; specks below a thousandth of the largest have none.

        Raises:
            UserError: for a mask that has not the shape of its image.
        """
        inside, _ = self._sides(row, definition.class_ids)
        labels, count = ndimage.label(inside)
        areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        slices = ndimage.find_objects(labels)
        chosen = [i for i in np.argsort(-areas)[:most] if 1000 * areas[i] >= areas.max()]
        height, width = inside.shape
        return [
            (
                round(100 * x.start / width, 2),
                round(100 * y.start / height, 2),
                round(100 * (x.stop - x.start) / width, 2),
                round(100 * (y.stop - y.start) / height, 2),
            )
            for y, x in (slices[i] for i in chosen)
        ]

    def _sides(self, row: int, class_ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return where what matters is and where it is not: bool, in the image's or mask's size."""
        path = self.split.paths[row]
        image = header(path)
        height, width = image.height, image.width
        if self.boxes is not None:
            inside = np.zeros((height, width), dtype=bool)
            for left, top, right, bottom in self.boxes[path]:
                inside[floor(top) : ceil(bottom), floor(left) : ceil(right)] = True
            return inside, ~inside
        ids = load_ids(self.split.masks[row])
        if _fits(ids.shape[::-1], (height, width)):  # drawn on an image as stored, not as shown
            turned = np.asarray(upright(Image.fromarray(ids), image.orientation))
            ids = turned if _fits(turned.shape, (height, width)) else ids
        if not _fits(ids.shape, (height, width)):
            raise UserError(
                f"mask of {path.name}",
                expected=f"the shape of its image, {height} x {width} pixels or a multiple",
                got=f"{ids.shape[0]} x {ids.shape[1]}",
                remedy="Give it the mask that was drawn on it.",
            )
        inside = np.isin(ids, class_ids)
        return inside, ~inside & (ids != VOID)


def _fits(shape: tuple[int, ...], image: tuple[int, int]) -> bool:
    """Return whether a mask of this shape (H, W) has the shape of its image, or a multiple."""
    return abs(shape[1] * image[0] / shape[0] - image[1]) <= 1
