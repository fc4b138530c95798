"""Refit a ranking by answers: what was right is an exemplar more, what was wrong counts against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from solo_ood.data.rare import RareDefinition
from solo_ood.detection.feats import Feats, PatchView, joined
from solo_ood.detection.regions import Regions
from solo_ood.embedding.extract import Embedded
from solo_ood.mining.evidence import boxes_of, score_regions
from solo_ood.mining.scenes import choose
from solo_ood.mining.sheets import Answers

AGAINST = 0.5  # weight of what was wrong beside what was right, for detectors of whole pictures
QUESTIONS = 20
_NO_CLASSES = RareDefinition("boxes", (), 0, 0)


@dataclass(frozen=True)
class Lesson:
    """What a detector is to learn from: answers on images that could be embedded.

    Attributes:
        yes: rows of the embedded images.
        no: the same.
        boxes: by file, of some of those of yes.
    """

    yes: list[int]
    no: list[int]
    boxes: dict[Path, list[tuple[float, float, float, float]]]

    @property
    def rows(self) -> list[int]:
        """All that were answered."""
        return [*self.yes, *self.no]


def lesson_of(answers: Answers, frames: tuple[Path, ...], kept: tuple[Path, ...]) -> Lesson:
    """Return the answers by row of ``kept``, the images of ``frames`` that could be embedded."""
    row_of = {path: row for row, path in enumerate(kept)}
    yes, no = (
        [row_of[frames[row]] for row in rows if frames[row] in row_of]
        for rows in (answers.yes, answers.no)
    )
    return Lesson(yes, no, {frames[row]: boxes for row, boxes in answers.boxes.items()})


def with_regions(lesson: Lesson, embedded: Embedded, known: Feats | None) -> Feats:
    """Return exemplars with regions: those that are ``known``, and what was answered.

    In images with a yes the boxes matter; where none were given, the region for which they were
    shown: the best one by what is known so far. In images with a no, nothing matters.
    """
    assert embedded.patches is not None
    parts = [] if known is None else [known]
    paths = embedded.split.paths
    boxed = [row for row in lesson.yes if paths[row] in lesson.boxes]
    if boxed:
        parts.append(_marked(boxed, embedded, lesson.boxes))
    open_ = [row for row in lesson.yes if row not in boxed]
    if open_ and parts:
        shown = _shown(open_, embedded, joined(parts))
        parts.append(_marked(open_, embedded, shown))
    if lesson.no:
        feats = _feats(lesson.no, embedded)
        assert feats.patches is not None
        grid = embedded.patches.shape[1] * embedded.patches.shape[2]
        nothing = np.tile(np.array([0, 1], dtype=np.float32), (len(lesson.no), grid, 1))
        parts.append(replace(feats, regions=nothing))
    return joined(parts)


def _feats(rows: list[int], embedded: Embedded) -> Feats:
    assert embedded.patches is not None
    view = PatchView(embedded.patches, embedded.rows[np.array(rows)])
    return Feats(embedded.pooled[rows], view)


def _marked(rows: list[int], embedded: Embedded, boxes: dict[Path, list]) -> Feats:
    assert embedded.patches is not None
    seen = Regions(embedded.split, embedded.size, embedded.patches.shape[1:3], boxes)
    return replace(_feats(rows, embedded), regions=seen.patch_shares(_NO_CLASSES, rows))


def _shown(rows: list[int], embedded: Embedded, known: Feats) -> dict[Path, list]:
    """Return the box of the best region by ``known``, of each of the rows."""
    assert embedded.patches is not None
    grid = (embedded.patches.shape[1], embedded.patches.shape[2])
    _, cells = score_regions(_feats(rows, embedded), known, grid, lambda count: None)
    boxes = zip(rows, boxes_of(embedded, rows, cells))
    return {embedded.split.paths[row]: [] if box is None else [box] for row, box in boxes}


def questions(
    scores: np.ndarray, unit: np.ndarray, lesson: Lesson, last: float, near: float
) -> list[int]:
    """Return the rows of the images whose answer would teach most, of different scenes.

    They are those about which the ranking is least sure (uncertainty sampling, Lewis and Gale,
    1994): nearest to the middle between the mean scores of yes and of no.

    Args:
        scores: (M,) of the refitted detector.
        unit: (M, D) of length 1.
        lesson: the answers so far.
        last: the score of the last scene of the list, which is the middle as long as only one of
            the two was ever answered.
        near: cosine distance within which images are one scene.
    """
    middle = last
    if lesson.yes and lesson.no:
        middle = float((np.nanmean(scores[lesson.yes]) + np.nanmean(scores[lesson.no])) / 2)
    sure = np.abs(scores - middle)
    clips = [""] * len(scores)
    return choose(-sure, unit, clips, QUESTIONS, near, known=lesson.rows).chosen.tolist()
