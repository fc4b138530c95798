"""How good a list is, from a stratified audit: estimates with intervals that are valid for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from solo_ood.evaluation.ranking import Interval

DRAWS = 4000
_LEVEL = 0.95


class Stratum(NamedTuple):
    """A part of the images.

    Attributes:
        size: images in it.
        audited: of them, drawn at random without replacement.
        rare: of those audited.
    """

    size: int
    audited: int
    rare: int

    @property
    def share(self) -> float:
        """Share of rare images among those audited; NaN without any."""
        return self.rare / self.audited if self.audited else float("nan")


@dataclass(frozen=True)
class Estimates:
    """What an audit says of a list, each with a 95 % interval.

    Attributes:
        precision: share of the listed images that are rare.
        prevalence: share of all images that are rare: the precision of random picks.
        lift: precision / prevalence; random picks have 1.
        recall: share of the rare images that are listed.
        random_recall: of as many random picks.
    """

    precision: Interval
    prevalence: Interval
    lift: Interval
    recall: Interval
    random_recall: float


def estimate(listed: Stratum, rest: Stratum, seed: int = 0) -> Estimates:
    """Return what an audit of a list, and of the images that are not on it, says.

    Estimates are those of stratified sampling (Cochran, 1977, ch. 5). The intervals are quantiles
    of the posterior under Jeffreys' prior, Beta(1/2, 1/2) for each stratum, of how many of the
    images that nobody looked at are rare; so a stratum that was audited whole has no uncertainty,
    and one without any rare image still has some. They hold their level on average over samples
    (Brown, Cai and DasGupta, 2001, doi:10.1214/ss/1009213286), and with two strata that differ in
    size also for ratios, see the test. With fewer than about two rare images in the audit they are
    too wide rather than too narrow.
    """
    whole = listed.size + rest.size
    totals = draw_totals(
        np.array([listed.size, rest.size]),
        np.array([listed.audited, rest.audited]),
        np.array([listed.rare, rest.rare]),
        np.random.default_rng(seed),
    )
    drawn = measures(totals, listed.size, whole)
    found = listed.share * listed.size
    total = found + (rest.share * rest.size if rest.size else 0.0)
    values = measures(np.array([found, total - found]), listed.size, whole)
    ends = ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2)
    intervals = [
        Interval(float(value), *map(float, np.quantile(sample, ends)))
        for value, sample in zip(values, drawn)
    ]
    precision, prevalence, lift, recall = intervals
    return Estimates(precision, prevalence, lift, recall, listed.size / whole)


def draw_totals(
    sizes: np.ndarray,
    audited: np.ndarray,
    rare: np.ndarray,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> np.ndarray:
    """Return (draws, ..., H) how many images of each stratum are rare, from the posterior.

    Args:
        sizes: (H,) images of each stratum.
        audited: (..., H) of them.
        rare: (..., H) of those.
        rng: draws.
        draws: their number.
    """
    shares = rng.beta(rare + 0.5, audited - rare + 0.5, size=(draws, *rare.shape))
    return rare + rng.binomial(sizes - audited, shares)


def measures(
    totals: np.ndarray, listed: int, whole: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, prevalence, lift and recall of a list.

    Args:
        totals: (..., 2) rare images on the list and beside it.
        listed: images on it.
        whole: images in all.
    """
    found, every = totals[..., 0], totals.sum(axis=-1)
    precision, prevalence = found / listed, every / whole
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(every > 0, found / every, 0.0)
        lift = np.where(every > 0, precision / prevalence, 0.0)
    return precision, prevalence, lift, recall
