"""The statistics of a study, beside independent computations."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from solo_ood.study.statistics import (
    bootstrap_interval,
    holm,
    paired_difference,
    sign_flip_p,
)


@pytest.mark.parametrize("n", [5, 10])
def test_the_interval_holds_the_mean_as_often_as_it_says(n):
    samples = np.random.default_rng(77).normal(3, 2, size=(300, n))
    held = [low <= 3 <= high for low, high in map(bootstrap_interval, samples)]
    assert 0.9 <= np.mean(held) <= 0.98  # the plain percentile interval of 5: 0.86


def test_of_many_values_the_interval_is_that_of_student():
    values = np.random.default_rng(0).normal(size=400)
    expected = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    assert bootstrap_interval(values) == pytest.approx(expected, abs=0.005)


def test_the_sign_flip_test_counts_all_flips():
    differences = np.array([2.0, -0.5, 1.5, 3.0, 0.25, -1.0])
    means = [np.mean(differences * signs) for signs in product((1, -1), repeat=6)]
    as_far = np.abs(means) >= abs(differences.mean()) - 1e-12
    assert sign_flip_p(differences) == pytest.approx(as_far.mean())


def test_the_smallest_p_of_five_pairs():
    assert sign_flip_p([1, 2, 3, 4, 5]) == 2 / 2**5


def test_without_an_effect_a_small_p_is_rare():
    samples = np.random.default_rng(1).normal(size=(400, 8))
    assert np.mean([sign_flip_p(sample) <= 0.05 for sample in samples]) < 0.08


def test_holm_by_hand():
    """Sorted .01, .02, .03, .04 times 4, 3, 2, 1 is .04, .06, .06, .04; made monotone."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert holm([]) == []


def test_a_difference_is_of_pairs():
    found = paired_difference([81, 92, 73], [80, 90, 70])
    assert (found.mean, found.n) == (2, 3)
    assert found.low < 2 < found.high
    assert found == paired_difference([81, 92, 73], [80, 90, 70])  # the draws do not change


def test_a_single_pair_has_no_interval():
    found = paired_difference([81], [80])
    assert np.isnan(found.low) and np.isnan(found.high) and found.p == 1
