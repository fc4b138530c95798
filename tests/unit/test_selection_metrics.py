"""What selection logs: rates, precision and lift, the age of the queue; and its controls."""

from __future__ import annotations

import pytest
import torch
from selection_streams import B, common, make, step, warm

from solo_ood.runs.summary import detector_lines


@pytest.mark.parametrize("name", ["knn", "random"])
def test_the_long_run_flag_rate_is_1_minus_the_percentile(name):
    selector = make(scorer={"name": name}, threshold={"name": "quota"})
    for t in range(400):
        step(selector, list(range(16)), common(16, seed=t))
    assert selector.metrics()["flag_rate"] == pytest.approx(0.1, abs=0.01)


def test_rate_precision_and_lift_are_those_counted_by_hand():
    selector = make(rare_classes=[1])
    scores, rare = [], []
    for t in range(100):
        targets = (torch.arange(16) == t % 16).long()
        spread = 1 + 1.5 * targets[:, None]
        feats = selector.embed([1 + spread * (common(16, seed=t) - 1)])
        if selector.scorer.ready:
            scores.append(selector.scorer.ood_score(feats, indexes=torch.arange(16)))
            rare.append(targets == 1)
        selector.step(torch.arange(16), feats, targets)
    selector.judge_pending()
    all_scores, is_rare = torch.cat(scores), torch.cat(rare)
    flags = all_scores > all_scores[:32].sort().values[28]  # the 29th: .9 of the first 32
    flagged, both = int(flags.sum()), int((flags & is_rare).sum())
    metrics = selector.metrics()
    assert 0 < both < flagged
    assert metrics["flag_rate"] == flagged / len(flags)
    assert metrics["precision"] == both / flagged
    assert metrics["lift"] == pytest.approx(both / flagged / float(is_rare.float().mean()))


def test_the_oracle_picks_the_rare_class_and_the_random_control_does_not():
    lifts = {}
    for name in ("oracle", "random"):
        selector = make(scorer={"name": name}, threshold={"name": "quota"}, rare_classes=[1])
        for t in range(200):
            step(selector, list(range(16 * t, 16 * t + 16)), common(16))
        lifts[name] = selector.metrics()["lift"]
    assert lifts["oracle"] > 8  # of 10: every 16th sample is rare, every 10th is flagged
    assert lifts["random"] == pytest.approx(1, abs=0.3)


def test_metrics_that_are_not_known_yet_are_left_out():
    known = {"queue_fill", "queue_age", "replayed", "not_finite", "distinct_replayed"}
    assert make().metrics().keys() == known
    assert "precision" not in warm().metrics()


def test_features_that_are_not_finite_are_counted_and_never_queued():
    selector, feats = warm(), common(B)
    judged = selector.counts["judged"]
    feats[3, 2] = float("nan")
    step(selector, list(range(100, 108)), feats)
    selector.judge_pending()
    assert selector.metrics()["not_finite"] == 1
    assert selector.counts["judged"] == judged + 7 and 103 not in selector.queue


def test_samples_without_a_score_are_reported_with_the_possible_reason():
    few = {"n_reference": 16, "min_samples": 16, "k": 16}  # 8 samples: 14 rows are another's
    selector = make(scorer=few)
    for t in range(10):
        step(selector, list(range(B)), common(B, seed=t))
    selector.judge_pending()
    assert selector.counts["judged"] == 0 and selector.counts["not_finite"] == 8 * B
    said = "\n".join(detector_lines(selector, selector.cfg))
    assert "64 samples had no score and were left out: features NaN or Inf, or fewer than" in said
    assert "ood.scorer.k = 16 other samples to compare with" in said
    other = make(scorer={"name": "mahalanobis", "k": None})
    other.counts["not_finite"] = 3
    said = "\n".join(detector_lines(other, other.cfg))
    assert "3 samples had no score and were left out: features NaN or Inf" in said
    assert "fewer" not in said


def test_the_age_in_the_queue_counts_steps():
    selector = make()
    selector.queue.push([500])
    for t in range(3):  # of the warm-up, which flags nothing
        step(selector, list(range(B)), common(B, seed=t))
    assert selector.metrics()["queue_age"] == 3


def test_the_metrics_survive_a_reload():
    selector, loaded = warm(rare_classes=[0]), make()
    loaded.load_state_dict(selector.state_dict())
    assert loaded.metrics() == selector.metrics() and "lift" in loaded.metrics()
