"""Paired differences: bootstrap intervals, sign-flip tests, Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 10_000


class Difference(NamedTuple):
    """A mean difference over n pairs, its 95 % interval, and the p of a two-sided test."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def paired_difference(values: Sequence[float], reference: Sequence[float]) -> Difference:
    """Return how much higher ``values`` are than ``reference``, pair by pair.

    Args:
        values: (n,) of one arm.
        reference: (n,) of another one, of the same pairs in the same order.

    Returns:
        the mean difference; of one pair without an interval (NaN) and with p = 1.
    """
    found = np.asarray(values, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    low, high = bootstrap_interval(found)
    return Difference(float(found.mean()), low, high, sign_flip_p(found), len(found))


def bootstrap_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of (n,) values, NaN for fewer than two.

    The expanded percentile interval (Hesterberg, 2015, The American Statistician 69, 371-386):
    percentiles so far out that they are as wide as Student's t for normal values. The plain
    percentile interval of 5 normal values holds their mean 86 % of the time, this one 93 %, of 10
    values 94 % (simulated). The draws are always the same.
    """
    sample = np.asarray(values, dtype=np.float64)
    n = len(sample)
    if n < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)
    means = sample[rng.integers(n, size=(RESAMPLES, n))].mean(axis=1)
    z = np.sqrt(n / (n - 1)) * stats.t.ppf((1 - LEVEL) / 2, n - 1)
    outside = stats.norm.cdf(z)
    low, high = np.quantile(means, (outside, 1 - outside))
    return float(low), float(high)


def sign_flip_p(differences: Sequence[float] | np.ndarray) -> float:
    """Return the two-sided p of the sign-flip permutation test that the mean is 0.

    All 2^n flips where there are at most 9,999, else as many random ones. Of n pairs p is at least
    2 / 2^n: 0.0625 of 5, 0.002 of 10.
    """
    sample = np.asarray(differences, dtype=np.float64)
    if len(sample) < 2 or not sample.any():
        return 1.0
    # For one sample, `samples` flips signs; the generator matters only for random flips.
    found = stats.permutation_test(
        (sample,), np.mean, permutation_type="samples", vectorized=True, n_resamples=9_999,
        **_generator(),
    )  # fmt: skip
    return float(found.pvalue)


def _generator() -> dict[str, np.random.Generator]:
    """SciPy renamed the argument in 1.15."""
    import inspect

    known = inspect.signature(stats.permutation_test).parameters
    return {"rng" if "rng" in known else "random_state": np.random.default_rng(0)}


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values adjusted for their number (Holm, 1979), in the same order.

    The i-th smallest of m is multiplied by m - i + 1, is at least the one before it, at most 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled)) if len(p) else p
    return [float(value) for value in adjusted]
