"""Ranking and threshold metrics against scikit-learn and their definitions; bootstrap intervals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from solo_ood.evaluation.ranking import (
    bootstrap,
    ranking_metrics,
    threshold_metrics,
    top_lift,
)

SIZE = st.integers(2, 60)


@st.composite
def labelled_scores(draw, levels: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bool with both classes and (N,) integer scores with many ties."""
    n = draw(SIZE)
    rare = draw(hnp.arrays(bool, n).filter(lambda x: 0 < x.sum() < len(x)))
    return rare, draw(hnp.arrays(np.int64, n, elements=st.integers(0, levels))).astype(float)


def flags_of(data: st.DataObject) -> tuple[np.ndarray, np.ndarray]:
    n = data.draw(SIZE)
    return data.draw(hnp.arrays(bool, n)), data.draw(hnp.arrays(bool, n))


@settings(max_examples=200, deadline=None)
@given(labelled_scores())
def test_auroc_is_the_share_of_pairs_in_order_and_half_of_the_ties(drawn):
    rare, scores = drawn
    gaps = scores[rare][:, None] - scores[~rare]
    expected = ((gaps > 0) + 0.5 * (gaps == 0)).mean()
    assert ranking_metrics(rare, scores)["auroc"] == pytest.approx(expected)


@settings(max_examples=200, deadline=None)
@given(labelled_scores())
def test_ap_is_the_precision_at_each_level_by_the_recall_that_it_adds(drawn):
    rare, scores = drawn
    expected = sum(
        rare[scores >= level].mean() * (rare & (scores == level)).sum() / rare.sum()
        for level in np.unique(scores)
    )
    assert ranking_metrics(rare, scores)["ap"] == pytest.approx(expected)


@settings(max_examples=200, deadline=None)
@given(labelled_scores(levels=30))
def test_fpr95_is_that_of_the_highest_level_that_finds_95_percent(drawn):
    rare, scores = drawn
    enough = [v for v in np.unique(scores) if (scores[rare] >= v).sum() * 20 >= rare.sum() * 19]
    expected = (scores[~rare] >= max(enough)).mean()
    assert ranking_metrics(rare, scores)["fpr95"] == pytest.approx(expected)


def test_fpr95_of_levels_that_all_hold_as_many_rare_as_common_samples():
    rare, scores = np.tile([True, False], 20), np.repeat(np.arange(20.0), 2)
    assert ranking_metrics(rare, scores)["fpr95"] == pytest.approx(0.95)


@settings(max_examples=60, deadline=None)
@given(labelled_scores(), st.floats(0.01, 0.99), st.sampled_from([np.cbrt, np.exp, np.float32]))
def test_only_the_order_of_the_scores_counts_however_large_they_are(drawn, share, monotone):
    rare, scores = drawn
    expected = ranking_metrics(rare, scores) | {"top": top_lift(rare, scores, share)}
    for other in (1e6 + 1e6 * scores, -1e-6 * (30 - scores), monotone(scores)):
        found = ranking_metrics(rare, other) | {"top": top_lift(rare, other, share)}
        assert found == pytest.approx(expected)


def test_unbounded_scores_give_what_scikit_learn_gives():
    rng = np.random.default_rng(0)
    rare = rng.random(500) < 0.2
    scores = 1e6 * (rng.normal(size=500) + rare)
    found = ranking_metrics(rare, scores)
    assert found["auroc"] == pytest.approx(roc_auc_score(rare, scores))
    assert found["ap"] == pytest.approx(average_precision_score(rare, scores))
    assert 0.7 < found["auroc"] < 0.85


@pytest.mark.parametrize("all_rare", [True, False])
def test_one_class_alone_has_no_ranking_and_no_warning(all_rare):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ranking_metrics(np.full(9, all_rare), np.arange(9.0))
        lift = top_lift(np.full(9, all_rare), np.arange(9.0), 0.2)
    assert np.isnan(list(found.values())).all() and len(found) == 3
    assert lift == 1 if all_rare else np.isnan(lift)


@settings(max_examples=100, deadline=None)
@given(labelled_scores(), st.floats(0.001, 0.999), st.randoms(use_true_random=False))
def test_top_lift_is_the_mean_over_all_orders_of_the_ties(drawn, share, random):
    rare, scores = drawn
    taken = max(1, round(share * len(rare)))
    order = np.argsort(-scores, kind="stable")
    by_level = {v: rare[scores == v].mean() for v in scores}  # what a tied place is worth
    expected = np.mean([by_level[scores[row]] for row in order[:taken]]) / rare.mean()
    assert top_lift(rare, scores, share) == pytest.approx(expected)
    shuffled = np.array(random.sample(range(len(rare)), len(rare)))
    assert top_lift(rare[shuffled], scores[shuffled], share) == pytest.approx(expected)


def test_top_lift_without_ties_is_counted_by_hand():
    rare = np.array([0, 1, 0, 0, 1, 0, 0, 0, 0, 0], dtype=bool)
    scores = np.array([1, 9, 8, 3, 4, 2, 0, 5, 6, 7.0])
    assert top_lift(rare, scores, 0.1) == pytest.approx(5)  # 1 of 1, base rate .2
    assert top_lift(rare, scores, 0.2) == pytest.approx(2.5)
    assert top_lift(rare, scores, 0.0) == pytest.approx(5)  # at least one is taken
    assert top_lift(rare, scores, 1.0) == pytest.approx(1)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_threshold_metrics_equal_scikit_learns_and_stay_below_the_ceiling(data):
    rare, flagged = flags_of(data)
    found = threshold_metrics(rare, flagged)
    precision, recall, f1, _ = precision_recall_fscore_support(
        rare, flagged, average="binary", zero_division=np.nan
    )
    expected = {"precision": precision, "recall": recall}
    if rare.any() or flagged.any():  # else ours is NaN, and versions of scikit-learn differ
        expected["f1"] = f1
    expected |= {"accuracy": accuracy_score(rare, flagged), "base_rate": rare.mean()}
    expected |= {"flag_rate": flagged.mean()}
    assert {name: found[name] for name in expected} == pytest.approx(expected, nan_ok=True)
    if rare.any() and flagged.any():
        assert found["lift"] == pytest.approx(precision / rare.mean())
        assert found["recall"] <= found["recall_ceiling"] <= 1
        perfect = threshold_metrics(rare, np.argsort(np.argsort(~rare)) < flagged.sum())
        assert perfect["recall"] == pytest.approx(found["recall_ceiling"])


def test_nothing_flagged_has_no_precision_and_nothing_rare_no_recall():
    some, none = np.array([True, False, False]), np.zeros(3, dtype=bool)
    unknown = {name for name, v in threshold_metrics(some, none).items() if np.isnan(v)}
    assert unknown == {"precision", "lift"}
    unknown = {name for name, v in threshold_metrics(none, some).items() if np.isnan(v)}
    assert unknown == {"recall", "recall_ceiling", "lift"}


def noise(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random(n) < 0.2, rng.normal(size=n)


def test_random_scores_have_lift_1_and_auroc_one_half_within_the_interval():
    rare, scores = noise(2000)

    def metrics(repeat: int, rows: np.ndarray) -> dict[str, float]:
        lift = top_lift(rare[rows], scores[rows], 0.2)
        return {"auroc": ranking_metrics(rare[rows], scores[rows])["auroc"], "lift": lift}

    found = bootstrap(metrics, 2000, samples=200)
    for name, truth, width in (("auroc", 0.5, 0.08), ("lift", 1, 0.5)):
        assert found[name].low < truth < found[name].high < found[name].low + width
        assert found[name].low <= found[name].value <= found[name].high


def mean_of(values: np.ndarray, block: int = 1, **more):
    return bootstrap(lambda _, rows: {"x": values[rows].mean()}, len(values), block=block, **more)[
        "x"
    ]


def test_95_percent_of_the_intervals_hold_the_truth():
    rng = np.random.default_rng(0)
    found = [mean_of(rng.normal(size=80), samples=150, seed=seed) for seed in range(150)]
    inside = np.mean([interval.low < 0 < interval.high for interval in found])
    assert inside == pytest.approx(0.95, abs=0.05)


def test_blocks_widen_the_intervals_of_a_video_and_not_of_single_images():
    rng = np.random.default_rng(0)
    single = rng.normal(size=600)
    video = np.repeat(rng.normal(size=60), 10)  # ten frames of each scene
    widths = {}
    for name, values in (("single", single), ("video", video)):
        for block in (1, 30):
            interval = mean_of(values, block, samples=400)
            widths[name, block] = interval.high - interval.low
    assert widths["video", 30] > 2 * widths["video", 1]
    assert widths["single", 30] == pytest.approx(widths["single", 1], rel=0.25)


@pytest.mark.parametrize(("n", "block"), [(7, 3), (6, 3), (3, 10)])
def test_a_bootstrap_sample_has_n_images_in_runs_of_neighbours_around_the_end(n, block):
    drawn = []
    bootstrap(lambda _, rows: drawn.append(rows) or {}, n, samples=50, block=block)
    assert drawn[0].tolist() == list(range(n))  # the value itself is of all images
    starts = set()
    for rows in drawn[1:]:
        assert len(rows) == n
        starts |= set(rows[::block])
        inner = np.arange(n) % block != 0
        assert ((rows - np.roll(rows, 1)) % n == 1)[inner].all() or n == 1
    assert starts == set(range(n))


def test_the_value_is_the_mean_of_the_repeats_and_the_interval_that_of_a_single_one():
    found = bootstrap(lambda repeat, rows: {"x": float(repeat)}, 10, repeats=3, samples=300)["x"]
    assert found == (1, 0, 2)
    unknown = bootstrap(
        lambda repeat, rows: {"x": [np.nan, 4.0][repeat], "y": np.nan}, 10, repeats=2, samples=50
    )
    assert unknown["x"] == (4, 4, 4) and np.isnan(unknown["y"]).all()


def test_a_seed_fixes_the_draws():
    rare, _ = noise(50)
    assert mean_of(rare, seed=3, samples=20) == mean_of(rare, seed=3, samples=20)
    assert mean_of(rare, seed=3, samples=20) != mean_of(rare, seed=4, samples=20)
