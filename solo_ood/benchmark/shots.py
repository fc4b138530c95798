"""The test images on the page of a measurement: thumbnails, and points in a plane."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from solo_ood.benchmark import charts
from solo_ood.benchmark.measure import Scores
from solo_ood.benchmark.page import caption, classes_of
from solo_ood.data.images import Split
from solo_ood.data.pixels import Unreadable
from solo_ood.data.rare import RareDefinition
from solo_ood.detection.regions import Regions
from solo_ood.errors import UserError
from solo_ood.pages import plots
from solo_ood.pages.page import jpeg_uri
from solo_ood.pages.parts import Gallery, Mark, Scatter, Thumbnail, panel

SHOT_SIDE = 320  # pixels of the longer side, enlarged
SHOTS = 12  # of the highest scores, and of the lowest


class Images:
    """The thumbnails of one split; a page holds each image once.

    Args:
        split: the images.
        root: of the data; paths are shown from there.
        size: H and W (pixels) to which the images are scaled for the network.
    """

    def __init__(self, split: Split, root: Path, size: tuple[int, int]) -> None:
        self.split = split
        self._root = root
        self._regions = Regions(split, size, (1, 1))
        self._shown: set[int] = set()

    def path(self, row: int) -> str:
        """Return the path of an image as a reader knows it."""
        path = self.split.paths[row]
        return str(path.relative_to(self._root) if path.is_relative_to(self._root) else path)

    def gallery(
        self,
        title: str,
        about: str,
        rows: Iterable[int],
        scores: np.ndarray,
        definition: RareDefinition,
    ) -> Gallery:
        """Return thumbnails of ``rows``; ``scores`` (N,) are those of one detector."""
        rare = definition.is_rare(self.split, True)
        shots = [self._thumbnail(int(row), float(scores[row]), definition, rare) for row in rows]
        return Gallery(title, about, shots)

    def _thumbnail(
        self, row: int, score: float, definition: RareDefinition, rare: np.ndarray
    ) -> Thumbnail:
        source = ""
        if row not in self._shown:
            self._shown.add(row)
            source = jpeg_uri(plots.thumbnail(self.split.paths[row], SHOT_SIDE, self.split.levels))
        return Thumbnail(
            f"{row}",
            source,
            self.path(row),
            caption(self.split, row, definition),
            f"ood_score {score:.4g}",
            bool(rare[row]),
            self._outline(row, definition),
        )

    def _outline(self, row: int, definition: RareDefinition) -> list[Mark]:
        """Return where in an image what is rare is: of images with masks."""
        if not self.split.by_pixels:
            return []
        try:
            return self._regions.outlines(definition, row)
        except (Unreadable, UserError):  # a mask of another shape costs its outline alone
            return []


def galleries(images: Images, measured: Scores, definition: RareDefinition) -> list[Gallery]:
    """Return the images that a detector finds most and least rare (first repeat)."""
    scores = measured.test[0]
    order = charts.highest(measured, len(scores))
    few_rows = min(SHOTS, len(order) // 2)
    what = f"Thick double frame: rare ({classes_of(definition, images.split)})."
    if images.split.by_pixels:
        what += " Dashed: where that is."
    return [
        images.gallery(
            f"{measured.detector}: the {few_rows} {ends} scores",
            f"Test images, {first} first. {what} Click to enlarge.",
            rows,
            scores,
            definition,
        )
        for ends, first, rows in (
            ("highest", "the rarest", order[:few_rows]),
            ("lowest", "the most common", order[::-1][:few_rows]),
        )
    ]


def scatter_of(
    shown: charts.Plane,
    images: Images,
    scores: Scores | None,
    definition: RareDefinition,
    text: str,
) -> Scatter:
    """Return the points of a page's scatter; each says its path, what is in it and its score."""
    rare, split = definition.is_rare(images.split, True)[shown.rows], images.split
    about = []
    for row, is_rare in zip(shown.rows.tolist(), rare):
        lines = [images.path(row), caption(split, row, definition)]
        if scores is not None:
            lines.append(f"ood_score of {scores.detector}: {scores.test[0][row]:.4g}")
        about.append((f"{row}", ("rare: " if is_rare else "") + lines[1], lines[0], *lines[2:]))
    return Scatter(
        [panel(name, points, rare) for name, points in shown.points.items()],
        shown.axes,
        about,
        f"rare ({classes_of(definition, split)}): {int(rare.sum())}",
        f"others: {int((~rare).sum())}",
        text,
    )
