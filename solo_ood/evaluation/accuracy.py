"""Accuracy by group and class, and AUROC of rare against rest, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from solo_ood.evaluation.ranking import Interval

SAMPLES = 1000  # of the bootstrap
SPREAD = ("Many", "Medium", "Few")  # whose standard deviation is Std
_AT_A_TIME = 4_000_000  # numbers of a bootstrap held at a time


@dataclass(frozen=True)
class Accuracies:
    """What predictions are worth, each with a 95 % interval.

    Attributes:
        groups: percent by group: All, Many, Medium, Few, as far as validation images are of them;
            Std, the standard deviation (points) of the last three, if all are there.
        classes: percent by class id.
        auroc: of rare against rest, in [0, 1]; ``None`` where one of them is missing.
    """

    groups: dict[str, Interval]
    classes: dict[int, Interval]
    auroc: Interval | None


def accuracies(
    predictions: np.ndarray,
    rare_scores: np.ndarray,
    targets: np.ndarray,
    groups: Mapping[str, Sequence[int]],
    seed: int = 0,
) -> Accuracies:
    """Return the accuracies of R draws of a reference, and their AUROC.

    A value is the mean over the draws. Its interval holds 95 % of bootstrap samples, each of one
    draw and of validation images drawn anew within their class (Efron, 1979): what another draw
    and other images may give.

    Args:
        predictions: (R, M) class ids.
        rare_scores: (R, M) higher = more like the classes of ``groups["Few"]``.
        targets: (M,) class ids.
        groups: class ids by group; {} for none.
        seed: of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    labels, of, images = np.unique(targets, return_inverse=True, return_counts=True)
    hits = np.zeros((len(predictions), len(labels)), dtype=np.int64)  # (R, C)
    for row, right in zip(hits, predictions == targets):
        row += np.bincount(of, weights=right, minlength=len(labels)).astype(np.int64)
    draws = rng.integers(len(predictions), size=SAMPLES)
    # How many of n images drawn with replacement were classified rightly is binomial.
    drawn = rng.binomial(images, hits[draws] / images)  # (SAMPLES, C)
    found, resampled = {}, {}
    for name, ids in {"All": labels.tolist(), **groups}.items():
        members = np.isin(labels, ids)
        if members.any():
            whole = 100 / images[members].sum()
            found[name] = hits[:, members].sum(axis=1) * whole
            resampled[name] = drawn[:, members].sum(axis=1) * whole
    if set(SPREAD) <= found.keys():
        for values in (found, resampled):
            values["Std"] = np.std([values[name] for name in SPREAD], axis=0)
    percent = 100 * hits.mean(axis=0) / images
    limits = np.percentile(100 * drawn / images, (2.5, 97.5), axis=0)
    classes = {
        int(label): Interval(float(value), float(low), float(high))
        for label, value, low, high in zip(labels, percent, *limits)
    }
    rare = np.isin(targets, groups.get("Few", []))
    auroc = (
        bootstrapped_auroc(rare, rare_scores, draws, rng) if 0 < rare.sum() < len(rare) else None
    )
    intervals = {name: _interval(found[name], resampled[name]) for name in found}
    return Accuracies(intervals, classes, auroc)


def _interval(values: np.ndarray, resampled: np.ndarray) -> Interval:
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Interval(float(values.mean()), float(low), float(high))


def bootstrapped_auroc(
    rare: np.ndarray, scores: np.ndarray, draws: np.ndarray, rng: np.random.Generator
) -> Interval:
    """Return the AUROC's mean over R draws and its interval over bootstrap samples.

    Rare images and the others are drawn anew apart, so that both are in every sample.

    Args:
        rare: (M,) bool, of both kinds.
        scores: (R, M) higher = rarer.
        draws: (S,) the draw of each bootstrap sample.
        rng: of the images.
    """
    once = np.ones((1, len(rare)))
    whole = np.concatenate([_aurocs(rare, row, once) for row in scores])
    found = []
    for draw, repeats in zip(*np.unique(draws, return_counts=True)):
        step = max(1, _AT_A_TIME // len(rare))
        for start in range(0, repeats, step):
            weights = _resampled(rare, min(step, repeats - start), rng)
            found.append(_aurocs(rare, scores[draw], weights))
    return _interval(whole, np.concatenate(found))


def _resampled(rare: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return (samples, M): how often each image was drawn, within its kind."""
    weights = np.empty((samples, len(rare)))
    for kind in (np.flatnonzero(rare), np.flatnonzero(~rare)):
        n = len(kind)
        taken = rng.integers(n, size=(samples, n)) + n * np.arange(samples)[:, None]
        weights[:, kind] = np.bincount(taken.ravel(), minlength=samples * n).reshape(samples, n)
    return weights


def _aurocs(rare: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the AUROC (S,) of images that count ``weights`` (S, M) times; ties count half."""
    order = np.argsort(scores)
    ordered = scores[order]
    first = np.searchsorted(ordered, ordered, side="left")
    after = np.searchsorted(ordered, ordered, side="right")
    weights, positive = weights[:, order], rare[order]
    below = np.zeros((len(weights), len(rare) + 1))
    np.cumsum(weights * ~positive, axis=1, out=below[:, 1:])
    beaten = (below[:, first] + below[:, after]) / 2
    pairs = (weights * positive).sum(axis=1) * below[:, -1]
    return (weights * positive * beaten).sum(axis=1) / pairs
