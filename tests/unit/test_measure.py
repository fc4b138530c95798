"""How detectors are measured: held-out thresholds, cross-fitting, exemplars, repeats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from solo_ood.benchmark.measure import Scores, measure, score
from solo_ood.benchmark.plan import Plan, Task, check
from solo_ood.data.rare import RareDefinition
from solo_ood.detection.detectors import Detector, detector
from solo_ood.detection.feats import Feats
from solo_ood.evaluation.ranking import ranking_metrics, threshold_metrics, top_lift

RARE, OTHER = (RareDefinition(name, (n,), 0.5, 0.5) for n, name in enumerate(("rare", "other")))
QUICK = Plan(sizes=(None,), repeats=2, n_exemplars=3, draws=4, bootstrap=30)


class Spy:
    """Detectors that remember what they were fitted on and asked for.

    The first feature of an image is its number. A score is the distance to the nearest fit image by
    the others: 0 for those that were learnt, as if by heart.
    """

    def __init__(self) -> None:
        self.fits: list[list[int]] = []
        self.seeds: list[int] = []
        self.asked: list[tuple[list[int], list[int], list[int]]] = []  # learnt, scored, exemplars

    def fit(self, feats: Feats, seed: int):
        learnt = feats.pooled[:, 0].astype(int).tolist()
        self.fits.append(learnt)
        self.seeds.append(seed)

        def scores(test: Feats, exemplars: Feats | None) -> np.ndarray:
            numbers = test.pooled[:, 0].astype(int).tolist()
            named = [] if exemplars is None else exemplars.pooled[:, 0].astype(int).tolist()
            self.asked.append((learnt, numbers, named))
            gaps = np.linalg.norm(test.pooled[:, None, 1:] - feats.pooled[None, :, 1:], axis=2)
            found = gaps.min(axis=1)
            return np.where(np.isin(numbers, named), 1e9, found)  # exemplars stand out

        return scores

    def detector(self, **more: bool) -> Detector:
        return Detector("spy", self.fit, **more)


def task(n_fit: int, n_test: int | None, seed: int = 0, rate: float = 0.2) -> Task:
    rng = np.random.default_rng(seed)
    n = n_fit + (n_test or 0)
    feats = np.hstack([np.arange(n)[:, None], rng.normal(size=(n, 3))]).astype(np.float32)
    rare = {one: rng.random(n) < rate for one in (RARE, OTHER)}
    fit, test = slice(0, n_fit), slice(n_fit if n_test else 0, n)
    split = {one: (values[fit], values[test]) for one, values in rare.items()}
    return Task(Feats(feats[fit]), Feats(feats[test]) if n_test else None, split)


def rows_of(scores: Scores, given: Task, plan: Plan, definition: RareDefinition = RARE):
    return measure(scores, given.rare[definition][1], plan, "net", definition.name)


def test_memorising_detector_flags_the_stated_share_of_new_images():
    given = task(600, 3000)
    (scores,) = score(given, [Spy().detector()], QUICK)[RARE]
    for row in rows_of(scores, given, QUICK):
        expected = pytest.approx(1 - row.percentile, abs=0.03)
        assert row.metrics["flag_rate"].value == expected
        assert row.threshold == np.quantile(scores.held_out[0], row.percentile) > 0


def test_no_model_ever_scores_what_it_learnt_and_all_fit_images_are_held_out_once():
    spy, given = Spy(), task(50, 20)
    (scores,) = score(given, [spy.detector()], QUICK)[RARE]
    assert not any(set(learnt) & set(numbers) for learnt, numbers, _ in spy.asked)
    held_out = sorted(n for _, numbers, _ in spy.asked for n in numbers if n < 50)
    assert held_out == list(range(50)) and len(scores.held_out[0]) == 50
    assert sorted(map(len, spy.fits)) == [40] * 5 + [50]  # the test split by all of them
    assert [learnt for learnt, numbers, _ in spy.asked if numbers[0] >= 50] == [list(range(50))]


@pytest.mark.parametrize("size", [None, 20, 45])
def test_without_a_test_split_every_image_is_scored_once_by_a_model_that_has_not_seen_it(size):
    spy, given, plan = Spy(), task(50, None), replace(QUICK, sizes=(size,), repeats=1)
    (scores,) = score(given, [spy.detector()], plan)[RARE]
    assert not any(set(learnt) & set(numbers) for learnt, numbers, _ in spy.asked)
    assert sorted(n for _, numbers, _ in spy.asked for n in numbers) == list(range(50))
    assert {len(learnt) for learnt in spy.fits} == {min(size or 50, 40)}
    assert (scores.test[0] > 0).all() and len(scores.test[0]) == 50
    np.testing.assert_array_equal(scores.held_out[0], scores.test[0])
    flagged = rows_of(scores, given, plan)[-1].metrics["flag_rate"].value
    assert flagged == pytest.approx(0.2)  # exact: the thresholds are of the same scores


@pytest.mark.parametrize("block", [1, 10])
def test_the_neighbouring_frames_of_a_block_stay_in_one_fold(block):
    spy = Spy()
    score(task(50, 20), [spy.detector()], replace(QUICK, block=block))
    folds = [numbers for _, numbers, _ in spy.asked if numbers[0] < 50]
    runs = [numbers == list(range(numbers[0], numbers[0] + 10)) for numbers in folds]
    assert len(folds) == 5 and all(runs) == (block == 10)
    assert [numbers[0] for numbers in folds] != sorted(numbers[0] for numbers in folds)


def test_a_size_takes_that_many_fit_images_anew_in_each_repeat():
    spy, given, plan = Spy(), task(50, 20), replace(QUICK, sizes=(20,), repeats=3)
    (scores,) = score(given, [spy.detector()], plan)[RARE]
    whole = [learnt for learnt in spy.fits if len(learnt) == 20]
    assert len(whole) == 3 and len({tuple(learnt) for learnt in whole}) == 3
    assert all(len(set(learnt)) == 20 for learnt in whole)
    assert scores.n_fit == 20 and [len(held) for held in scores.held_out] == [20] * 3
    for repeat, learnt in enumerate(whole):  # held out of the same 20 images
        asked = [a for a in spy.asked if a[1][0] < 50][5 * repeat : 5 * repeat + 5]
        assert sorted(n for _, numbers, _ in asked for n in numbers) == learnt


@pytest.mark.parametrize(
    ("flags", "sizes", "repeats", "n_fit"),
    [
        ({}, (None,), [1], [50]),
        ({}, (20, None), [3, 1], [20, 50]),
        ({"seeded": True}, (None,), [3], [50]),
        ({"learns": False, "seeded": True}, (20, 30, None), [3], [None]),
        ({"exemplars": True}, (None,), [7], [50]),
        ({"exemplars": True}, (20,), [7], [20]),  # draws are shared out among the subsets
    ],
)
def test_repeats_are_subsets_seeds_and_draws_of_exemplars(flags, sizes, repeats, n_fit):
    plan = replace(QUICK, sizes=sizes, repeats=3, draws=7)
    spy, given = Spy(), task(50, 20)
    found = score(given, [spy.detector(**flags)], plan)
    for definition in (RARE, OTHER):
        assert [scores.n_fit for scores in found[definition]] == n_fit
        assert [len(scores.test) for scores in found[definition]] == repeats
        assert [len(scores.held_out) for scores in found[definition]] == repeats
        rows = rows_of(found[definition][0], given, plan, definition)
        assert {row.repeats for row in rows} == {repeats[0]}


def test_exemplars_are_drawn_among_the_rare_fit_images_of_each_definition():
    spy, given, plan = Spy(), task(50, 20), replace(QUICK, draws=6)
    score(given, [spy.detector(exemplars=True)], plan)
    drawn = {tuple(sorted(named)) for _, _, named in spy.asked}
    rare, other = (set(np.flatnonzero(given.rare[one][0])) for one in (RARE, OTHER))
    assert all(
        len(set(named)) == 3 and (set(named) <= rare or set(named) <= other) for named in drawn
    )
    assert len(drawn) == 12 and len(spy.fits) == 6  # exemplars need no new fit


def test_detector_without_learning_is_fitted_once():
    spy, given = Spy(), task(50, 20)
    (scores,) = score(given, [spy.detector(learns=False)], QUICK)[RARE]
    assert len(spy.fits) == 1 and len(scores.held_out[0]) == 50
    spy = Spy()
    (scores,) = score(task(50, None), [spy.detector(learns=False)], QUICK)[RARE]
    assert len(spy.fits) == 1 and len(scores.test[0]) == 50


@pytest.mark.parametrize("regions", [True, False])
def test_regions_are_those_of_the_exemplars_by_each_definition_and_only_for_who_asks(regions):
    given, seen = task(50, 20), []

    def fit(feats: Feats, seed: int):
        def scores(test: Feats, exemplars: Feats) -> np.ndarray:
            assert test.regions is None
            seen.append((exemplars.pooled[:, 0].astype(int), exemplars.regions))
            return test.pooled[:, 1]

        return scores

    given = replace(given, regions=lambda one, rows: 1000 * one.class_ids[0] + rows[:, None, None])
    score(given, [Detector("spy", fit, exemplars=True, regions=regions, learns=False)], QUICK)
    assert len(seen) == 2 * 2 * QUICK.draws  # two definitions, two splits
    if not regions:
        assert all(found is None for _, found in seen)
        return
    rare, other = (set(np.flatnonzero(given.rare[one][0])) for one in (RARE, OTHER))
    for number, (rows, found) in enumerate(seen):
        is_other = number >= len(seen) // 2
        np.testing.assert_array_equal(found[:, 0, 0], rows + 1000 * is_other)
        assert set(rows) <= (other if is_other else rare)


def test_given_exemplars_are_used_for_every_definition():
    spy, given = Spy(), task(50, 20)
    found = score(given, [spy.detector(exemplars=True)], replace(QUICK, exemplars=(4, 9)))
    assert {tuple(named) for _, _, named in spy.asked} == {(4, 9)}
    assert [len(found[one][0].test) for one in (RARE, OTHER)] == [1, 1]


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("n_test", [200, None])
def test_exemplars_count_neither_for_the_threshold_nor_as_found(n_test, learns):
    given, exemplars = task(60, n_test), (3, 5, 8)
    given.rare[RARE][0][list(exemplars)] = True
    plan = replace(QUICK, exemplars=exemplars)
    (scores,) = score(given, [Spy().detector(exemplars=True, learns=learns)], plan)[RARE]
    assert len(scores.held_out[0]) == 57 and max(scores.thresholds(0.999)) < 1e8
    rare = given.rare[RARE][1]
    judged = np.delete(rare, exemplars) if n_test is None else rare
    unknown = np.flatnonzero(np.isnan(scores.test[0])).tolist()
    assert unknown == ([] if n_test else list(exemplars))
    for row in rows_of(scores, given, plan):
        assert row.metrics["base_rate"].value == pytest.approx(judged.mean())
        assert row.metrics["auroc"].value < 0.8  # the exemplars are not its hits


@pytest.mark.parametrize("learns", [True, False])
def test_neighbours_of_exemplars_in_their_block_do_not_count_either(learns):
    given, plan = task(60, None), replace(QUICK, exemplars=(3, 27), block=5)
    (scores,) = score(given, [Spy().detector(exemplars=True, learns=learns)], plan)[RARE]
    unknown = np.flatnonzero(np.isnan(scores.test[0])).tolist()
    assert unknown == [*range(5), *range(25, 30)] and len(scores.held_out[0]) == 50


def test_a_row_holds_the_metrics_of_the_scores_at_its_threshold_and_a_tie_is_not_flagged():
    rng = np.random.default_rng(0)
    rare, plan = rng.random(200) < 0.3, replace(QUICK, percentiles=(0.9, 0.5))
    ties = np.round(rng.normal(size=200) + rare)
    scores = Scores("spy", 7, [np.zeros(9), np.ones(9)], [ties, 5 - ties])
    rows = measure(scores, rare, plan, "net", "rare")
    assert [row.percentile for row in rows] == [0.9, 0.5]
    for row in rows:
        assert (row.embedder, row.definition, row.detector) == ("net", "rare", "spy")
        assert (row.n_fit, row.n_test, row.repeats, row.threshold) == (7, 200, 2, 0.5)
        expected: dict[str, list[float]] = {}
        for limit, values in zip((0, 1), scores.test):
            found = ranking_metrics(rare, values) | threshold_metrics(rare, values > limit)
            found["top_lift"] = top_lift(rare, values, 1 - row.percentile)
            for name, value in found.items():
                expected.setdefault(name, []).append(value)
        assert row.metrics.keys() == expected.keys()
        for name, values in expected.items():
            assert row.metrics[name].value == pytest.approx(np.mean(values))


def test_the_random_control_has_lift_1_and_its_held_out_scores_are_all_its_own():
    given, plan = task(300, 2000), replace(QUICK, repeats=4, bootstrap=100)
    (scores,) = score(given, [detector("random")], plan)[RARE]
    pool = np.concatenate(scores.held_out)
    assert len(np.unique(pool)) > 0.99 * len(pool)
    for row in rows_of(scores, given, plan)[1:]:
        assert row.metrics["flag_rate"].value == pytest.approx(1 - row.percentile, abs=0.025)
        assert row.metrics["lift"].low < 1 < row.metrics["lift"].high
    assert row.metrics["auroc"].low < 0.5 < row.metrics["auroc"].high


def test_sizes_that_the_fit_split_cannot_give_are_left_out():
    plan = check(task(60, 20), replace(QUICK, sizes=(20, 60, 61, 1024, None)), [])
    assert plan == replace(QUICK, sizes=(20, None))  # 60 are all of them


@pytest.mark.parametrize(
    ("n", "changed", "error"),
    [
        (60, {"sizes": (1024, 256)}, "fit split: expected at least 256 images, got 60. .*--sizes"),
        (9, {}, "at least 10 images, got 9. .* lower --folds or --block"),
        (60, {"sizes": (9, None)}, "--folds: .* got 5 folds of 9 images"),
        (60, {"folds": 1}, "--folds: expected at least 2,.* got 1 folds of 60"),
        (60, {"block": 13}, "at least 65 images, got 60. .* lower --folds or --block"),
        (60, {"block": 9, "sizes": (44, 60)}, "at least 9 fit images .* got 5 folds of 44"),
        (60, {"exemplars": (3, 60)}, "exemplars: expected indexes .* 0 to 59, got 60"),
        (60, {"exemplars": (-1,)}, "exemplars: expected indexes .* 0 to 59, got -1"),
        (60, {"n_exemplars": 50}, r"exemplars: expected at least 50 rare images .* got \d"),
    ],
)
def test_a_plan_that_the_data_cannot_give_is_an_error(n, changed, error):
    with pytest.raises(ValueError, match=error):
        check(task(n, 20), replace(QUICK, **changed), [Spy().detector(exemplars=True)])


def test_exemplars_are_checked_only_for_detectors_that_need_them():
    plan = replace(QUICK, n_exemplars=50)
    assert check(task(60, 20), plan, [detector("knn")]) == plan
