"""Where in an image a detector by regions sees what matters: the box of its best region."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor
from pathlib import Path

import numpy as np
from scipy import ndimage

from solo_ood.data.pixels import Unreadable, header
from solo_ood.detection.boxes import Box
from solo_ood.detection.feats import Feats
from solo_ood.detection.segmentation import region_maps

_OF_HIGHEST = 0.5  # of a map: what belongs to its best region


def score_regions(
    feats: Feats, exemplars: Feats, grid: tuple[int, int], progress: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores (N,) of ``exemplar-regions`` and the cells of the best regions.

    Args:
        feats: with the patches of N images.
        exemplars: with patches and regions.
        grid: h and w of the patches.
        progress: called after each image.

    Returns:
        (N,) float64: the mean of each map, in [0, 1], as the detector has it; and (N, 4) int: left,
        top, right and bottom of the best region, in cells.
    """
    scores = np.zeros(len(feats))
    cells = np.zeros((len(feats), 4), dtype=np.int64)
    for row, region_map in enumerate(region_maps(feats, exemplars)):
        scores[row] = float(region_map.mean())
        cells[row] = best_region(region_map.numpy().reshape(grid))
        progress()
    return scores, cells


def best_region(region_map: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom (cells) of the region with the largest sum in (h, w).

    A region is what is connected of the cells with at least half of the highest value.
    """
    labels, count = ndimage.label(region_map >= _OF_HIGHEST * region_map.max())
    sums = ndimage.sum_labels(region_map, labels, np.arange(1, count + 1))
    y, x = ndimage.find_objects(labels)[int(np.argmax(sums))]
    return x.start, y.start, x.stop, y.stop


def box_in_image(
    cells: np.ndarray, grid: tuple[int, int], size: tuple[int, int], path: Path
) -> Box | None:
    """Return a region as a box in pixels of the image as it is shown.

    Args:
        cells: (4,) left, top, right, bottom.
        grid: h and w of the cells.
        size: H and W (pixels) to which the image was scaled and cut, see ``scale_and_crop``.
        path: the image; ``None`` is returned if it cannot be read any more.
    """
    try:
        image = header(path)
    except Unreadable:
        return None
    scale = max(size[0] / image.height, size[1] / image.width)
    sides = []
    for number, cell in enumerate(cells):
        axis = (number + 1) % 2  # left and right are along W
        whole = (image.height, image.width)[axis]
        cut = (max(size[axis], int(whole * scale)) - size[axis]) / 2
        at = (cell * size[axis] / grid[axis] + cut) / scale
        sides.append(min(max(floor(at) if number < 2 else ceil(at), 0), whole))
    left, top, right, bottom = sides
    return float(left), float(top), float(right), float(bottom)
