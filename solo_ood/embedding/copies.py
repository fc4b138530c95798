"""Counts equal embeddings, within a split and between both: possible copies of a picture."""

from __future__ import annotations

import numpy as np

EQUAL = 1e-6  # largest difference of two unit vectors: batches of another size round differently
MANY = 0.01  # share of a split that is noted


def equal_note(feats: np.ndarray) -> list[str]:
    """Return what it means that many of ``feats`` (N, D) are equal to another."""
    many = int(has_equal(feats).sum())
    if many <= MANY * len(feats):
        return []
    return [
        f"{many} of {len(feats)} embeddings are equal to another: copies of a picture? Their "
        "distance is 0, and lof, which divides by distances, is not to be trusted"
    ]


def copies_note(fit: np.ndarray, test: np.ndarray) -> list[str]:
    """Return what it means that many of ``test`` (N, D) are equal to one of ``fit`` (M, D)."""
    groups = _groups(np.concatenate([fit, test]))
    many = int(np.isin(groups[len(fit) :], groups[: len(fit)]).sum())
    if many <= MANY * len(test):
        return []
    return [
        f"{many} of {len(test)} test embeddings are equal to one of the fit split: copies of its "
        "pictures? The detectors have seen these"
    ]


def has_equal(feats: np.ndarray) -> np.ndarray:
    """Return (N,) bool: which rows of ``feats`` (N, D) have another in the same direction."""
    groups = _groups(feats)
    equal: np.ndarray = np.bincount(groups)[groups] > 1
    return equal


def _groups(feats: np.ndarray) -> np.ndarray:
    """Return (N,) int: the same number for rows of ``feats`` (N, D) in the same direction."""
    unit = feats / np.maximum(np.linalg.norm(feats, axis=1, keepdims=True), 1e-12)
    # Equal rows lie side by side along any direction; so few others do that one is enough.
    order = np.argsort(unit @ np.random.default_rng(0).normal(size=unit.shape[1]), kind="stable")
    other = np.abs(np.diff(unit[order], axis=0)).max(axis=1, initial=0) >= EQUAL
    found = np.zeros(len(unit), dtype=np.int64)
    found[order[1:]] = np.cumsum(other)
    return found
