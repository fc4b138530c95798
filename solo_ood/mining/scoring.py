"""The scores of the images that could be embedded, by exemplars and by answers where there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from solo_ood.console import counting_bar
from solo_ood.detection.boxes import Box
from solo_ood.detection.feats import Feats, feats_of, joined
from solo_ood.embedding.extract import Embedded
from solo_ood.mining.cross_fit import cross_fitted, groups_of
from solo_ood.mining.evidence import boxes_of, score_regions
from solo_ood.mining.feedback import AGAINST, Lesson, lesson_of, with_regions
from solo_ood.mining.request import Request


@dataclass(frozen=True)
class Scored:
    """The images that could be embedded, and their scores.

    Attributes:
        embedded: M of them.
        scores: (M,), higher = rarer.
        lesson: the answers of earlier lists.
        cells: (M, 4) of the best regions; ``None`` = whole pictures were looked at.
    """

    embedded: Embedded
    scores: np.ndarray
    lesson: Lesson
    cells: np.ndarray | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The M files."""
        return self.embedded.split.paths

    @cached_property
    def unit(self) -> np.ndarray:
        """(M, D) float32, the features of length 1."""
        rows = self.embedded.pooled
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    def boxes(self) -> Sequence[Box | None]:
        """Return the evidence of every image, in its pixels; () = there is none."""
        if self.cells is None:
            return ()
        return boxes_of(self.embedded, range(len(self.cells)), self.cells)


def score(request: Request, embedded: Embedded, known: Feats | None) -> Scored:
    """Return the scores of what was embedded; ``known`` are the exemplars."""
    lesson = lesson_of(request.answers, request.frames.paths, embedded.split.paths)
    if request.detector.regions:
        return _by_regions(embedded, known, lesson)
    feats = feats_of(embedded)
    fair = request.options.fair
    clips = dict(zip(request.frames.paths, request.frames.clips))
    groups = groups_of([clips[path] for path in embedded.split.paths], fair.block)

    def scores_of(exemplars: Feats | None) -> np.ndarray:
        return cross_fitted(
            request.detector, feats, groups, exemplars, fair.folds, fair.fit_on, fair.seed
        )

    if not request.detector.exemplars:
        return Scored(embedded, scores_of(None), lesson)
    parts = [part for part in (known, _pooled(embedded, lesson.yes)) if part is not None]
    scores = scores_of(joined([Feats(part.pooled) for part in parts]))
    against = _pooled(embedded, lesson.no)
    if against is not None:
        scores = scores - AGAINST * scores_of(against)
    return Scored(embedded, scores, lesson)


def _by_regions(embedded: Embedded, known: Feats | None, lesson: Lesson) -> Scored:
    assert embedded.patches is not None
    exemplars = with_regions(lesson, embedded, known)
    grid = (embedded.patches.shape[1], embedded.patches.shape[2])
    feats = feats_of(embedded)
    with counting_bar(len(feats), "regions", "img") as bar:
        scores, cells = score_regions(feats, exemplars, grid, bar.update)
    return Scored(embedded, scores, lesson, cells)


def _pooled(embedded: Embedded, rows: list[int]) -> Feats | None:
    return Feats(embedded.pooled[rows]) if rows else None
