"""A list of different scenes: near-duplicates stand behind the one with the highest score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

_BLOCK = 256  # images that are compared with each other at a time
_PAIRS = 4000  # of images, for the usual distance
_POOL = 10  # times N: how many of the highest scores a diverse choice is from
NONE = -1


@dataclass(frozen=True)
class Scenes:
    """Who stands behind whom.

    Attributes:
        chosen: (S,) rows of the representatives, the highest score first; S <= N asked for.
        behind: (M,) int: of each image the row of its representative, its own for one; ``NONE`` =
            of none that was chosen.
    """

    chosen: np.ndarray
    behind: np.ndarray

    def like(self, row: int) -> int:
        """Return how many images stand behind this one."""
        return int((self.behind == row).sum()) - 1


def usual_distance(unit: np.ndarray, seed: int = 0) -> float:
    """Return a quarter of the median cosine distance of two images; ``unit`` (M, D) of length 1."""
    first, second = np.random.default_rng(seed).integers(len(unit), size=(2, _PAIRS))
    apart = first != second
    distances = 1 - np.einsum("md,md->m", unit[first[apart]], unit[second[apart]])
    return max(0.0, float(np.median(distances)) / 4) if len(distances) else 0.0


@dataclass
class _Choice:
    """Representatives so far, and how many are still to be chosen."""

    unit: np.ndarray
    clips: np.ndarray
    near: float
    per_clip: int | None
    behind: np.ndarray
    chosen: list[int] = field(default_factory=list)
    of_clip: Counter[str] = field(default_factory=Counter)

    def is_full(self, clip: str) -> bool:
        """Whether a clip has all the scenes that it may have."""
        return self.per_clip is not None and clip != "" and self.of_clip[clip] >= self.per_clip

    def take(self, row: int) -> None:
        """Make an image a representative."""
        self.chosen.append(row)
        self.behind[row] = row
        self.of_clip[self.clips[row]] += 1


def choose(
    scores: np.ndarray,
    unit: np.ndarray,
    clips: Sequence[str],
    top: int,
    min_distance: float,
    per_clip: int | None = None,
    diverse: bool = False,
    known: Sequence[int] = (),
) -> Scenes:
    """Return the ``top`` scenes with the highest scores.

    By descending score an image becomes a representative, unless it is nearer than ``min_distance``
    to an earlier one, or its clip has ``per_clip`` of them: then it stands behind the nearest (of
    its clip). ``diverse`` takes representatives from the 10 ``top`` highest scores by the
    farthest-first traversal (Gonzalez, 1985, doi:10.1016/0304-3975(85)90224-5).

    Args:
        scores: (M,), NaN = not ranked.
        unit: (M, D) float32 of length 1.
        clips: M names, "" = not known.
        top: S at most.
        min_distance: cosine distance, in [0, 2]; 0 = no image is like another.
        per_clip: scenes of a clip, at most.
        diverse: see above.
        known: rows that are representatives from the start and not among the chosen: what looks
            like them is no news.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[np.isfinite(scores[order]) & ~np.isin(order, known)]
    near = 1 - min_distance if min_distance > 0 else np.inf
    behind = np.full(len(scores), NONE)
    choice = _Choice(unit, np.asarray(clips, dtype=object), near, per_clip, behind)
    for row in known:
        behind[row] = row
    if diverse:
        _farthest(choice, order[: _POOL * top], top, known)
    else:
        _by_score(choice, order, top, known)
    _fill(choice, order, known)
    chosen = np.array(choice.chosen, dtype=np.int64)
    return Scenes(chosen[np.argsort(-scores[chosen], kind="stable")], choice.behind)


def _by_score(choice: _Choice, order: np.ndarray, top: int, known: Sequence[int]) -> None:
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        rows = [*known, *choice.chosen]
        nearest = (choice.unit[block] @ choice.unit[rows].T).max(axis=1) if rows else None
        within = choice.unit[block] @ choice.unit[block].T
        taken: list[int] = []  # of this block
        for number, row in enumerate(block):
            similarity = max(
                -np.inf if nearest is None else nearest[number],
                within[number, taken].max(initial=-np.inf),
            )
            if similarity < choice.near and not choice.is_full(choice.clips[row]):
                choice.take(int(row))
                taken.append(number)
                if len(choice.chosen) == top:
                    return


def _farthest(choice: _Choice, pool: np.ndarray, top: int, known: Sequence[int]) -> None:
    similarity = np.full(len(pool), -np.inf)  # to the nearest representative
    for row in known:
        similarity = np.maximum(similarity, choice.unit[pool] @ choice.unit[row])
    open_ = np.ones(len(pool), dtype=bool)
    number = 0  # the highest score, unless an exemplar is like it
    while len(choice.chosen) < top and open_.any():
        if choice.chosen or known:
            number = int(np.where(open_, similarity, np.inf).argmin())
        if similarity[number] >= choice.near:
            return
        open_[number] = False
        if not choice.is_full(choice.clips[pool[number]]):
            choice.take(int(pool[number]))
            similarity = np.maximum(similarity, choice.unit[pool] @ choice.unit[pool[number]])


def _fill(choice: _Choice, order: np.ndarray, known: Sequence[int]) -> None:
    """Put what is like a representative, or of a clip that is full, behind the nearest."""
    rows = np.array([*known, *choice.chosen], dtype=np.int64)
    if not len(rows):
        return
    rest = order[choice.behind[order] == NONE]
    for start in range(0, len(rest), 4096):
        part = rest[start : start + 4096]
        similarity = choice.unit[part] @ choice.unit[rows].T
        best = similarity.argmax(axis=1)
        like = similarity[np.arange(len(part)), best] >= choice.near
        choice.behind[part[like]] = rows[best[like]]
        full = np.flatnonzero(~like) if choice.per_clip is not None else ()
        for number in full:
            clip = choice.clips[part[number]]
            if choice.is_full(clip):
                same = np.where(choice.clips[rows] == clip, similarity[number], -np.inf)
                choice.behind[part[number]] = rows[same.argmax()]
