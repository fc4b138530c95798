"""What a run says of itself: lift and rare replays with intervals, and when replay cannot help."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest
from selection_streams import D, common, make, step

from solo_ood.runs.summary import detector_lines
from solo_ood.selection import self_check
from solo_ood.selection.self_check import MIN_STEPS, help_warnings, wilson_interval

FIRST = {"threshold": {"name": "quota", "n": 16, "percentile": 0.75}, "rare_classes": [1]}


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (3, 20), (200, 200), (171, 1000)])
def test_the_interval_is_scipys(hits, n):
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits / n, n) == pytest.approx((expected.low, expected.high))


def passed_over(epochs, seed=0, **blocks):
    """A selector that saw the same 64 samples in every epoch, of which 4 are rare."""
    selector = make(**{**FIRST, "scorer": {"name": "oracle"}, **blocks})
    for epoch in range(epochs):
        for t in range(4):
            replayed = selector.queue.draw(2)
            rows = [*range(16 * t, 16 * t + 16), *replayed]
            step(selector, rows, common(len(rows), seed=4 * epoch + t), len(replayed))
    selector.judge_pending()
    return selector


def test_samples_that_are_judged_again_do_not_narrow_the_interval():
    once, often = (passed_over(epochs, scorer={"name": "random-fresh"}) for epochs in (6, 60))
    assert often.counts["flagged"] > 8 * once.counts["flagged"]
    for selector in (once, often):
        found, n = selector.metrics(), selector.self_check.distinct_flagged
        assert n <= 64
        low, high = wilson_interval(found["precision"], n)
        assert (found["precision_low"], found["precision_high"]) == (low, high)
        base = selector.counts["rare"] / selector.counts["judged"]
        assert found["lift_low"] == pytest.approx(low / base)
        assert found["lift_high"] == pytest.approx(high / base)
        assert found["lift_low"] < found["lift"] < found["lift_high"]


def test_rare_samples_that_were_replayed_are_counted_once():
    selector = passed_over(12)
    # The oracle ranks them first: of 16 in a row one is rare, and 4 are flagged.
    assert selector.metrics()["distinct_rare_replayed"] == 4 == len({0, 16, 32, 48})
    assert selector.counts["replayed"] > 20
    lines = "\n".join(detector_lines(selector, selector.cfg))
    distinct = int(selector.metrics()["distinct_replayed"])
    low, high = binomtest(4, distinct).proportion_ci(0.95, method="wilson")
    assert f"4 of them rare, {4 / distinct:.0%} (95 %: {low:.0%} to {high:.0%})" in lines
    assert f"({selector.self_check.distinct_flagged} distinct samples flagged)" in lines


def test_precision_and_lift_are_of_the_rare_classes_of_now():
    """Not a mean over two definitions, after a resume with another one or on other data."""
    first = passed_over(12, rare_classes=[0])
    assert first.metrics()["base_rate"] == 60 / 64
    again = make(**{**FIRST, "scorer": {"name": "oracle"}})
    again.load_state_dict(first.state_dict())
    assert again.rare_classes == [1] and "lift" not in again.metrics()
    for t in range(8):
        step(again, list(range(16 * (t % 4), 16 * (t % 4) + 16)), common(16, seed=t))
    again.judge_pending()
    assert again.metrics()["base_rate"] == 4 / 64
    assert again.metrics()["precision"] == pytest.approx(4 / 16)
    assert again.counts["judged"] > first.counts["judged"]
    again.set_rare_classes([1])  # the same data: nothing begins anew
    assert "lift" in again.metrics()


def test_without_labels_there_is_nothing_to_report():
    selector = make()
    for t in range(80):
        step(selector, list(range(16)), common(16, seed=t))
    assert not {"lift", "lift_low", "distinct_rare_replayed"} & selector.metrics().keys()
    assert "95 %" not in "\n".join(detector_lines(selector, selector.cfg))


def test_a_detector_that_is_no_better_than_chance_is_told_so():
    """The rare samples lie in the middle of the others, so that no distance flags them."""
    selector = make(**{**FIRST, "scorer": {"name": "knn"}})
    for t in range(2 * MIN_STEPS):
        feats = common(16, seed=t)
        feats[0] = torch.ones(D)
        step(selector, list(range(16 * t, 16 * t + 16)), feats)
    selector.judge_pending()
    (text,) = selector.warnings()
    lift = selector.metrics()["lift"]
    assert text.startswith("lift: expected a 95 % interval above 1") and f"got {lift:.2f}" in text
    assert text in "\n".join(detector_lines(selector, selector.cfg))


def test_a_good_detector_few_steps_and_random_controls_are_told_nothing():
    fresh = list(range(16 * 2 * MIN_STEPS))
    warned = {}
    for name in ("oracle", "random", "random-fresh"):
        selector = make(**{**FIRST, "scorer": {"name": name}})
        for t in range(2 * MIN_STEPS):
            step(selector, fresh[16 * t : 16 * t + 16], common(16, seed=t))
        warned[name] = selector.warnings()
    assert warned == {"oracle": [], "random": [], "random-fresh": []}
    low = {"lift": 1.2, "lift_low": 0.8, "lift_high": 1.9}
    assert help_warnings(low, "knn", MIN_STEPS) and not help_warnings(low, "knn", MIN_STEPS - 1)
    assert not help_warnings({**low, "lift_low": 1.01}, "knn", MIN_STEPS)


def test_few_samples_that_are_replayed_again_and_again_are_told():
    many = {"replays_per_epoch": 5.5}
    (text,) = help_warnings(many, "oracle", MIN_STEPS)
    assert text.startswith("replays of a sample in an epoch: expected at most 4 ")
    assert "got 5.5" in text and "ood.queue.max_replays_per_epoch" in text
    assert not help_warnings({"replays_per_epoch": 3.9}, "oracle", MIN_STEPS)
    selector = make(**{**FIRST, "scorer": {"name": "oracle"}})
    selector.queue.exposures.epoch = 16.0
    for t in range(2 * MIN_STEPS):
        replayed = selector.queue.draw(2)
        rows = [*range(16), *replayed]
        step(selector, rows, common(len(rows), seed=t), len(replayed))
    said = selector.warnings()  # 32 draws an epoch, of 4 samples
    assert any(text.startswith("replays of a sample in an epoch") for text in said)


def test_it_goes_on_after_a_resume_and_starts_anew_without_a_state():
    selector = passed_over(12)
    again = passed_over(0)
    state = selector.state_dict()
    again.load_state_dict(state)
    assert again.metrics() == selector.metrics()
    del state["self_check"]  # of a checkpoint of before
    older = passed_over(0)
    older.load_state_dict(state)
    assert older.self_check.distinct_flagged == 0
    assert older.metrics()["lift"] == selector.metrics()["lift"]
    assert "95 %" not in "\n".join(detector_lines(older, older.cfg))


def test_no_more_than_a_bounded_number_of_samples_is_counted(monkeypatch):
    monkeypatch.setattr(self_check, "MAX_DISTINCT", 3)
    check = self_check.SelfCheck()
    check.note_flagged([1, 2, 3, 4, 2], [False, True, False, True, True])
    assert check.distinct_flagged == 3
    check.note_replayed([2, 4])
    assert check.state_dict()["rare_replayed"].tolist() == [2]
