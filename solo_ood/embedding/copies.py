"""How many embeddings are equal to another: copies of a picture, or pictures that look alike."""

from __future__ import annotations

import numpy as np

EQUAL = 1e-6  # largest difference of two unit vectors: batches of another size round differently
MANY = 0.01  # share of a split that is worth a word


def equal_note(feats: np.ndarray) -> list[str]:
    """Return what it means that many of ``feats`` (N, D) are equal to another."""
    many = int(has_equal(feats).sum())
    if many <= MANY * len(feats):
        return []
    return [
        f"{many} of {len(feats)} embeddings are equal to another: copies of a picture? Their "
        "distance is 0, and lof, which divides by distances, is not to be trusted"
    ]


def has_equal(feats: np.ndarray) -> np.ndarray:
    """Return (N,) bool: which rows of ``feats`` (N, D) have another in the same direction."""
    unit = feats / np.maximum(np.linalg.norm(feats, axis=1, keepdims=True), 1e-12)
    # Equal rows lie side by side along any direction; so few others do that one is enough.
    order = np.argsort(unit @ np.random.default_rng(0).normal(size=unit.shape[1]), kind="stable")
    unit = unit[order]
    equal = np.zeros(len(unit), dtype=bool)
    near = np.abs(np.diff(unit, axis=0)).max(axis=1, initial=0) < EQUAL
    equal[:-1] |= near
    equal[1:] |= near
    found = np.empty_like(equal)
    found[order] = equal
    return found
