"""The intervals of an audit hold what they say, at any base rate, for its stratified design."""

from __future__ import annotations

import numpy as np
import pytest

from solo_ood.mining.estimates import Stratum, draw_totals, estimate, measures

REPETITIONS = 1000


@pytest.mark.parametrize("base_rate", [0.005, 0.05, 0.2])
@pytest.mark.parametrize("lift", [4.0, 2.0])
@pytest.mark.parametrize("audit", [300, 500])
def test_intervals_of_95_percent_hold_the_truth_in_93_to_97_percent_of_audits(
    base_rate, lift, audit
):
    """1,000 data sets of 20,000 images, a list of 500; half of the audit is of the list."""
    rng = np.random.default_rng(0)
    sizes = np.array([500, 19_500])
    drawn = np.array([audit // 2, audit // 2])
    inside = base_rate * lift
    beside = (base_rate * sizes.sum() - inside * sizes[0]) / sizes[1]
    rare = rng.binomial(sizes, [inside, beside], size=(REPETITIONS, 2))
    found = rng.hypergeometric(rare, sizes - rare, drawn)
    audited = np.broadcast_to(drawn, found.shape)
    totals = draw_totals(sizes, audited, found, rng, draws=1000)
    truths = measures(rare, 500, 20_000)
    for name, truth, sample in zip(
        ("precision", "prevalence", "lift", "recall"), truths, measures(totals, 500, 20_000)
    ):
        low, high = np.quantile(sample, [0.025, 0.975], axis=0)
        coverage = ((low <= truth + 1e-12) & (truth - 1e-12 <= high)).mean()
        # With fewer than two rare images among those audited no interval can be that exact: it has
        # to be too wide rather than too narrow.
        few = min(inside, beside) * audit / 2 < 2
        assert 0.93 <= coverage <= (1.0 if few else 0.97), (name, coverage)


def test_estimates_are_those_of_stratified_sampling():
    found = estimate(Stratum(100, 50, 20), Stratum(900, 90, 9))
    assert found.precision.value == pytest.approx(0.4)
    assert found.prevalence.value == pytest.approx((100 * 0.4 + 900 * 0.1) / 1000)
    assert found.recall.value == pytest.approx(40 / 130)
    assert found.lift.value == pytest.approx(0.4 / 0.13)
    assert found.random_recall == pytest.approx(0.1)
    for interval in (found.precision, found.prevalence, found.recall, found.lift):
        assert interval.low < interval.value < interval.high


def test_what_was_audited_whole_is_known_and_what_showed_nothing_is_not():
    found = estimate(Stratum(40, 40, 10), Stratum(400, 40, 0))
    assert found.precision == (0.25, 0.25, 0.25)
    assert found.recall.value == 1 and found.recall.low < 0.9
    assert found.prevalence.high > found.prevalence.value
    nothing = estimate(Stratum(40, 40, 0), Stratum(400, 40, 0))
    assert nothing.lift.value == 0 and np.isfinite(nothing.lift).all()
    assert estimate(Stratum(40, 20, 5), Stratum(0, 0, 0)).prevalence.value == 0.25
