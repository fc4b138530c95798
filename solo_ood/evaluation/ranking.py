"""How well scores find rare samples: ranking and threshold metrics, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import auc, average_precision_score, roc_curve


class Interval(NamedTuple):
    """A value and its 95 % percentile interval."""

    value: float
    low: float
    high: float


def ranking_metrics(rare: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return the metrics that need no threshold; rare is the positive class.

    scikit-learn takes scores of any range as they are (torchmetrics would squash them by a sigmoid
    first, which ties large ones).

    Args:
        rare: (N,) bool.
        scores: (N,) finite, higher = rarer.

    Returns:
        auroc; ap, the average precision; fpr95, the false positive rate at the first threshold
        with at least 95 % recall. NaN where only one class is there.
    """
    if rare.all() or not rare.any():
        return dict.fromkeys(("auroc", "ap", "fpr95"), float("nan"))
    # By default it leaves out points on a straight line, where the first with 95 % recall may be.
    false_positives, recalls, _ = roc_curve(rare, scores, drop_intermediate=False)
    return {
        "auroc": float(auc(false_positives, recalls)),
        "ap": float(average_precision_score(rare, scores)),
        "fpr95": float(false_positives[np.argmax(recalls >= 0.95)]),
    }


def top_lift(rare: np.ndarray, scores: np.ndarray, share: float) -> float:
    """Return how much more frequent rare samples are among the ``share`` with the highest scores.

    1 is a random ranking. At least one sample is taken; samples that tie with the last one count
    by their mean, so the order of the samples does not matter.
    """
    taken = max(1, round(share * len(scores)))
    last = np.partition(scores, len(scores) - taken)[len(scores) - taken]
    above, tied = scores > last, scores == last
    found = rare[above].sum() + rare[tied].mean() * (taken - above.sum())
    return float(found / taken / rare.mean()) if rare.any() else float("nan")


def threshold_metrics(rare: np.ndarray, flagged: np.ndarray) -> dict[str, float]:
    """Return the metrics of what was flagged.

    Args:
        rare: (N,) bool.
        flagged: (N,) bool.

    Returns:
        base_rate; flag_rate; accuracy; precision (NaN if nothing is flagged); recall; f1;
        recall_ceiling, the recall of a perfect detector at this flag rate; lift = precision / base
        rate.
    """
    base, flag = float(rare.mean()), float(flagged.mean())
    hits = float((rare & flagged).mean())
    precision = hits / flag if flag else float("nan")
    recall = hits / base if base else float("nan")
    return {
        "base_rate": base,
        "flag_rate": flag,
        "accuracy": float((rare == flagged).mean()),
        "precision": precision,
        "recall": recall,
        "f1": 2 * hits / (base + flag) if base + flag else float("nan"),
        "recall_ceiling": min(1.0, flag / base) if base else float("nan"),
        "lift": precision / base if base else float("nan"),
    }


def bootstrap(
    metrics: Callable[[int, np.ndarray], Mapping[str, float]],
    n: int,
    repeats: int = 1,
    samples: int = 500,
    block: int = 1,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return the mean over ``repeats`` and the 95 % percentile interval of a single one, by metric.

    Every bootstrap sample draws one repeat (a subset, a set of exemplars) and the test images anew
    with replacement (Efron, 1979): the interval holds what another user with other images and
    other exemplars may expect.

    Args:
        metrics: the metrics of one repeat on some of the test images (their indexes).
        n: N, test images.
        repeats: R.
        samples: bootstrap samples.
        block: length of the runs of neighbouring images that are drawn as one (Politis and
            Romano, 1992); more than 1 for video, whose frames are not independent.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    whole = [metrics(repeat, np.arange(n)) for repeat in range(repeats)]
    drawn = []
    for _ in range(samples):
        starts = rng.integers(n, size=-(-n // block))
        rows = ((starts[:, None] + np.arange(block)) % n).ravel()[:n]
        drawn.append(metrics(int(rng.integers(repeats)), rows))
    return {
        name: Interval(_mean([m[name] for m in whole]), *_limits([m[name] for m in drawn]))
        for name in whole[0]
    }


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if there is none."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _limits(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return float("nan"), float("nan")
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)
