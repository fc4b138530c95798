"""Where in an image a detector by regions sees what matters: the box of its best region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from scipy import ndimage

from solo_ood.data.pixels import Unreadable, header
from solo_ood.detection.boxes import Box
from solo_ood.detection.feats import Feats
from solo_ood.detection.segmentation import region_map_blocks
from solo_ood.embedding.extract import Embedded

_OF_HIGHEST = 0.5  # of a map: what belongs to its best region


def score_regions(
    feats: Feats, exemplars: Feats, grid: tuple[int, int], progress: Callable[[int], object]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores (N,) of ``exemplar-regions`` and the cells of the best regions.

    Args:
        feats: with the patches of N images.
        exemplars: with patches and regions.
        grid: h and w of the patches.
        progress: called with the number of images that are done since the last time.

    Returns:
        (N,) float64: the mean of each map, in [0, 1], as the detector has it; and (N, 4) int: left,
        top, right and bottom of the best region, in cells.
    """
    scores = np.zeros(len(feats))
    cells = np.zeros((len(feats), 4), dtype=np.int64)
    done = 0
    for block in region_map_blocks(feats, exemplars):
        rows = slice(done, done + len(block))
        scores[rows] = block.mean(dim=1).numpy()
        cells[rows] = best_regions(block.numpy().reshape(-1, *grid))
        done += len(block)
        progress(len(block))
    return scores, cells


def best_regions(maps: np.ndarray) -> np.ndarray:
    """Return (B, 4) left, top, right, bottom (cells) of the region with the largest sum of each.

    A region is what is connected of the cells with at least half of the highest value.

    Args:
        maps: (B, h, w), at least 0.
    """
    within = maps >= _OF_HIGHEST * maps.max(axis=(1, 2), keepdims=True)
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = ndimage.generate_binary_structure(2, 1)  # images do not touch each other
    labels, count = ndimage.label(within, structure)
    sums = np.bincount(labels.ravel(), maps.ravel(), minlength=count + 1)
    sums[0] = -np.inf  # what belongs to none
    of_cell = sums[labels].reshape(len(maps), -1)
    best = labels.reshape(len(maps), -1)[np.arange(len(maps)), of_cell.argmax(axis=1)]
    chosen = labels == best[:, None, None]
    sides = []
    for along in (chosen.any(axis=1), chosen.any(axis=2)):  # columns, then rows
        sides.append((along.argmax(axis=1), along.shape[1] - along[:, ::-1].argmax(axis=1)))
    (left, right), (top, bottom) = sides
    return np.stack([left, top, right, bottom], axis=1)


def boxes_in_images(
    cells: np.ndarray, grid: tuple[int, int], size: tuple[int, int], shown: np.ndarray
) -> np.ndarray:
    """Return (N, 4) left, top, right, bottom of regions, in pixels of the images as they are shown.

    Args:
        cells: (N, 4) left, top, right, bottom.
        grid: h and w of the cells.
        size: H and W (pixels) to which the images were scaled and cut, see ``scale_and_crop``.
        shown: (N, 2) height and width of the images as they are shown; all above 0.
    """
    scale = np.max(np.array(size) / shown, axis=1, keepdims=True)  # (N, 1)
    cut = (np.maximum(size, (shown * scale).astype(np.int64)) - size) / 2  # (N, 2)
    axes = [1, 0, 1, 0]  # left and right are along the width
    at = (cells * np.array(size)[axes] / np.array(grid)[axes] + cut[:, axes]) / scale
    whole = np.concatenate([np.floor(at[:, :2]), np.ceil(at[:, 2:])], axis=1)
    return np.clip(whole, 0, shown[:, axes]).astype(np.float64)


def shown_sizes(embedded: Embedded, rows: Sequence[int]) -> np.ndarray:
    """Return (R, 2) height and width of images as they are shown; 0 where one cannot be read.

    They were written down when the images were embedded; else the files are looked at.
    """
    sizes = np.zeros((len(rows), 2), dtype=np.int64)
    if embedded.shown is not None:
        sizes[:] = embedded.shown[list(rows)]
    for number in np.flatnonzero((sizes == 0).any(axis=1)).tolist():
        with suppress(Unreadable):
            image = header(embedded.split.paths[rows[number]])
            sizes[number] = image.height, image.width
    return sizes


def boxes_of(embedded: Embedded, rows: Sequence[int], cells: np.ndarray) -> list[Box | None]:
    """Return regions of images as boxes in pixels; ``None`` for one that cannot be read any more.

    Args:
        embedded: with patches.
        rows: (R,) of the images.
        cells: (R, 4) of the regions.
    """
    assert embedded.patches is not None
    grid = (embedded.patches.shape[1], embedded.patches.shape[2])
    sizes = shown_sizes(embedded, rows)
    found = boxes_in_images(cells, grid, embedded.size, np.maximum(sizes, 1)).tolist()
    return [
        (left, top, right, bottom) if height and width else None
        for (left, top, right, bottom), (height, width) in zip(found, sizes.tolist())
    ]
