"""Scores by which no image vouches for itself, nor for the frames beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import GroupKFold

from solo_ood.detection.detectors import Detector
from solo_ood.detection.feats import Feats
from solo_ood.errors import UserError

LEAST = 4  # images: two to learn from, two to score


def groups_of(clips: Sequence[str], block: int | None) -> np.ndarray:
    """Return (N,) int: the same number for images that must not vouch for each other.

    Args:
        clips: of N images in order; "" = not known.
        block: neighbours of a clip that belong together; ``None`` = the whole clip, or, where there
            is one clip at most, each image by itself.
    """
    _, numbers = np.unique(np.asarray(clips, dtype=object).astype(str), return_inverse=True)
    known = np.array([clip != "" for clip in clips])
    if block is None:
        if len({clip for clip in clips if clip}) < 2:
            return np.arange(len(clips))
        return np.where(known, numbers, len(clips) + np.arange(len(clips)))
    return numbers * len(clips) + position_in_clip(clips) // block


def position_in_clip(clips: Sequence[str]) -> np.ndarray:
    """Return (N,) int: the how-manieth of its clip each image is, from 0."""
    seen: dict[str, int] = {}
    positions = np.zeros(len(clips), dtype=np.int64)
    for row, clip in enumerate(clips):
        positions[row] = seen.get(clip, 0)
        seen[clip] = seen.get(clip, 0) + 1
    return positions


def cross_fitted(
    detector: Detector,
    feats: Feats,
    groups: np.ndarray,
    exemplars: Feats | None = None,
    folds: int = 5,
    most: int = 20_000,
    seed: int = 0,
) -> np.ndarray:
    """Return (N,) scores, each by a detector that has seen no image of the same group.

    Args:
        detector: which does not need regions.
        feats: of N images.
        groups: (N,), see ``groups_of``; whole groups are held out together.
        exemplars: for a detector that needs some.
        folds: parts of the data; as many as there are groups, if that is fewer.
        most: images that a detector learns from; of more, as many are drawn. Its memory then does
            not grow with N.
        seed: of that draw, and of detectors that have one.

    Raises:
        UserError: for fewer than 4 images, or groups.
    """
    if not detector.learns:
        return detector.fit(feats, seed)(feats, exemplars)
    count = len(np.unique(groups))
    if len(feats) < LEAST or count < 2:
        raise UserError(
            f"--by {detector.name}",
            expected=f"at least {LEAST} images, of 2 scenes, one of which is held out at a time",
            got=f"{len(feats)} of {count}",
            remedy="Give more images, or a smaller --block.",
        )
    rng = np.random.default_rng(seed)
    scores = np.full(len(feats), np.nan)
    splitter = GroupKFold(min(folds, count))
    for rest, held in splitter.split(np.zeros(len(feats)), groups=groups):
        if len(rest) > most:
            rest = np.sort(rng.choice(rest, most, replace=False))
        model = detector.fit(feats[rest], int(rng.integers(2**31)))
        scores[held] = model(feats[held], exemplars)
    return scores
