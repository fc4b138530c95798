"""What there is to see of a measurement: the pictures beside its page, and the page's sections."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from solo_ood.benchmark import charts, shots
from solo_ood.benchmark import page as content
from solo_ood.benchmark.measure import Scores, TableRow, draws
from solo_ood.benchmark.options import MeasureOptions
from solo_ood.benchmark.scoring import Measured
from solo_ood.data.rare import RareDefinition
from solo_ood.detection.detectors import DETECTORS
from solo_ood.detection.segmentation import region_maps
from solo_ood.pages import plots
from solo_ood.pages.page import Page


class Drawing:
    """Adds what there is to see to a page, and the pictures to its folder."""

    def __init__(
        self, page: Page, out: Path, options: MeasureOptions, results: Sequence[Measured]
    ) -> None:
        self.page, self.out, self.results = page, out, results
        self.projection, self.thumbnails = options.output.projection, options.output.thumbnails
        self.percentiles = options.plan.percentiles
        data = options.data.path
        root = data if data.is_dir() else data.parent
        self.images = shots.Images(results[0].test, root, results[0].size)
        self.failed: list[str] = []

    def definition(self, definition: RareDefinition, rows: list[TableRow], suffix: str) -> None:
        """Add the section of one definition of rare; ``suffix`` ends the names of its files."""
        page, first = self.page, self.results[0]
        rare, classes = first.task.rare[definition][1], content.classes_of(definition, first.test)
        page.heading(f"Rare: {definition.name}")
        limit = f" on more than {definition.test_min_share:.2%} of the pixels" * first.fit.by_pixels
        page.text(f"{rare.sum()} of {len(rare)} test images are rare: {classes}{limit}.")
        page.table(content.table_of(rows, f"Detectors of {definition.name}"))
        self._embeddings(definition, rare, suffix)
        for result in self.results:
            largest = _largest(result.scores[definition])
            truth = result.task.rare[definition][1]
            tail = suffix if result is first else f"{suffix}-{slug(result.name)}"
            title = f"{result.name}, rare: {definition.name}"
            make = partial(charts.histograms, largest, truth, self.percentiles, title)
            self._add(
                make,
                f"scores{tail}.png",
                f"{result.name}: scores of the test images, by detector. "
                f"Hatched: rare ({classes}); black lines: the thresholds.",
            )
            make = partial(charts.curves, largest, truth, title)
            self._add(
                make,
                f"curves{tail}.png",
                f"{result.name}: precision over recall, and lift over the share flagged, where "
                f"rare is {classes}.",
            )
        captions = [content.caption(first.test, row, definition) for row in range(len(rare))]
        for scores in _largest(first.scores[definition]):
            self._detector(scores, definition, captions, suffix)

    def _embeddings(self, definition: RareDefinition, rare: np.ndarray, suffix: str) -> None:
        feats = {result.name: result.test_feats for result in self.results}
        first = self.results[0]
        if len({len(rows) for rows in feats.values()}) > 1:  # a network failed on some images
            feats = {first.name: first.test_feats}
        how, drawn = self.projection, []

        def make() -> Figure:
            drawn.append(charts.plane(feats, how))
            paths = first.test.paths if self.thumbnails else ()
            title = f"{how} of the test images"
            return charts.scatter(drawn[0], rare, title, paths, levels=first.test.levels)

        name = f"embeddings{suffix}.png"
        about = f"Embeddings of the test images by {how}; triangles: rare ({definition.name})."
        if self._saved(make, name) and self.thumbnails:
            self.page.picture(self.out / name, about)
        if drawn:
            text = f"{about} Point at an image, or step with the arrow keys."
            scores = content.leading(_largest(first.scores[definition]), rare)
            self.page.scatter(shots.scatter_of(drawn[0], self.images, scores, definition, text))

    def _detector(
        self, scores: Scores, definition: RareDefinition, captions: Sequence[str], suffix: str
    ) -> None:
        first = self.results[0]
        rare = first.task.rare[definition][1]
        paths, levels = first.test.paths, first.test.levels
        make = partial(
            charts.extremes_sheet, scores, paths, captions, rare, scores.detector, levels
        )
        self._saved(make, f"images{suffix}-{scores.detector}.jpg")  # photographs
        for gallery in shots.galleries(self.images, scores, definition):
            self.page.gallery(gallery)
        if DETECTORS[scores.detector].regions:
            make = partial(_maps, first, scores, definition, captions)
            self._add(
                make,
                f"maps{suffix}-{scores.detector}.jpg",
                f"{scores.detector}: orange where it sees what the exemplars show of "
                f"{content.classes_of(definition, first.test)}, in the highest scores.",
            )

    def _add(self, make: Callable[[], Figure], name: str, caption: str) -> None:
        """Draw a figure, save it as ``name`` and show it on the page."""
        if self._saved(make, name):
            self.page.picture(self.out / name, caption)

    def _saved(self, make: Callable[[], Figure], name: str) -> bool:
        """Draw a figure and save it; where that fails the page says why."""
        problem = plots.save_or_explain(make, self.out / name)
        if problem is not None:
            self.page.text(problem)
            self.failed.append(problem)
        return problem is None


def _maps(
    result: Measured, scores: Scores, definition: RareDefinition, captions: Sequence[str]
) -> Figure:
    """Draw where the regions of the first exemplars are seen in the images that score highest."""
    task, rows = result.task, charts.highest(scores, 12)
    exemplars = draws(task.rare[definition][0], result.plan, 0, 1)[0]
    images = (task.test or task.fit)[rows]
    assert images.patches is not None  # a detector by regions has them
    grid = images.patches.array.shape[1:3]
    found = region_maps(images, task.exemplars(exemplars, definition, regions=True))
    return charts.overlay_maps(
        [seen.reshape(grid).numpy() for seen in found],
        [result.test.paths[row] for row in rows],
        result.size,
        [captions[row] for row in rows],
        task.rare[definition][1][rows],
        f"{scores.detector}: where it sees {definition.name} in the highest scores; bold: rare",
        result.test.levels,
    )


def _largest(scores: Sequence[Scores]) -> list[Scores]:
    """Return each detector's scores with the most fit samples."""
    best: dict[str, Scores] = {}
    for candidate in scores:
        if candidate.detector not in best or (candidate.n_fit or 0) >= (
            best[candidate.detector].n_fit or 0
        ):
            best[candidate.detector] = candidate
    return list(best.values())


def slug(name: str) -> str:
    """Return ``name`` as a part of a file's name, which has 255 bytes at most."""
    slug = re.sub(r"[^\w.-]+", "_", name)
    return slug.encode()[:60].decode(errors="ignore")
