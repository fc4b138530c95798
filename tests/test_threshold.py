"""Thresholds: the order statistic, the ties, and the flag rate under drift."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from solo_ood.config import ThresholdConfig
from solo_ood.threshold import FixedThreshold, TrackingThreshold, WindowThreshold, make_threshold

NAN, INF = float("nan"), float("inf")
NAMES = ("fixed", "window", "tracking")


def make(name: str, **kwargs) -> WindowThreshold:
    return make_threshold(ThresholdConfig(name, **{"n": 64, "min_samples": 64, **kwargs}))


def stream(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def run(threshold: WindowThreshold, scores: Tensor, batch: int) -> tuple[int, int]:
    """Judge, then learn; the number of flags, and of scores judged once ready."""
    flags = judged = 0
    for part in scores.split(batch):
        judged += len(part) if threshold.ready else 0
        flags += int(threshold.is_ood(part).sum())
        threshold.update(part)
    return flags, judged


@pytest.mark.parametrize("name", NAMES)
def test_ood_means_strictly_above_the_threshold(name):
    threshold = make(name, percentile=0.5)
    threshold.update(torch.arange(64.0))
    value = threshold.threshold
    scores = torch.stack((value, torch.nextafter(value, torch.tensor(INF)), value - 1))
    assert threshold.is_ood(scores).tolist() == [False, True, False]


@settings(max_examples=40, deadline=None)
@given(
    p=st.sampled_from([0.05, 0.33, 0.5, 0.77, 0.95, 0.99]),
    n=st.sampled_from([7, 33, 101]),
    length=st.integers(1, 250),
    batch=st.integers(1, 120),
)
def test_the_window_threshold_is_numpys_order_statistic_of_the_newest_scores(p, n, length, batch):
    assume((p * min(n, length)) % 1 > 1e-6)  # else NumPy takes the score below
    scores, threshold = stream(length), WindowThreshold(p, n, min_samples=1)
    run(threshold, scores, batch)
    expected = np.quantile(scores[-n:].numpy(), p, method="inverted_cdf")
    assert threshold.threshold == expected


class Lists:
    """The three thresholds as lists, in exact arithmetic: p and eta are binary fractions."""

    def __init__(self, name: str, p: float, n: int, min_samples: int, eta: float) -> None:
        self.name, self.p, self.n, self.eta = name, p, n, eta
        self.min_samples = n if name == "fixed" else min_samples
        self.level, self.seen, self.finite = p, 0, []
        self.flagged = self.judged = 0

    def limit(self) -> float:
        if self.seen < self.min_samples:
            return NAN
        window = sorted(self.finite[-self.n :])
        rank = math.floor(len(window) * self.level)
        return -INF if rank < 0 else INF if rank >= len(window) else window[rank]

    def update(self, scores: list[float]) -> None:
        if self.name == "fixed":
            scores = scores[: max(0, self.n - self.seen)]
        finite = [s for s in scores if math.isfinite(s)]
        if self.name == "tracking" and self.seen >= self.min_samples:
            self.flagged += sum(s > self.limit() for s in finite)
            self.judged += len(finite)
            self.level = self.p + self.eta * (self.flagged - (1 - self.p) * self.judged)
        self.finite += finite
        self.seen += len(scores)


score = st.one_of(st.integers(-4, 4), st.sampled_from([NAN, INF, -INF, 0.5])).map(float)


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    p=st.sampled_from([0.25, 0.5, 0.875]),
    n=st.integers(2, 16),
    min_samples=st.integers(1, 16),
    eta=st.sampled_from([1.0, 0.25, 2**-6]),
    batches=st.lists(st.lists(score, max_size=20), min_size=1, max_size=12),
)
def test_any_stream_in_any_batches_gives_what_lists_give(name, p, n, min_samples, eta, batches):
    min_samples = min(n, min_samples)
    threshold = make(name, percentile=p, n=n, min_samples=min_samples, eta=eta)
    model = Lists(name, p, n, min_samples, eta)
    for batch in batches:
        limit = model.limit()
        assert float(threshold.threshold) == limit or (math.isnan(limit) and not threshold.ready)
        scores = torch.tensor(batch, dtype=torch.float32)
        assert threshold.is_ood(scores).tolist() == [s > limit for s in batch]
        threshold.update(scores)
        model.update(batch)
    if isinstance(threshold, TrackingThreshold):
        assert (threshold.n_judged, threshold.level) == (model.judged, model.level)
        if model.judged:
            error = abs(model.flagged / model.judged - (1 - p))
            assert float(threshold.rate_bound) == pytest.approx(error, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    window=st.lists(st.integers(-9, 9), min_size=16, max_size=16),
    level=st.floats(-0.5, 1.5, width=32),
    score=st.integers(-10, 10),
)
def test_a_rank_above_the_level_is_a_score_above_its_quantile(window, level, score):
    threshold = WindowThreshold(0.5, 16, 1)
    threshold.update(torch.tensor(window, dtype=torch.float32))
    rank = sum(w < score for w in window) / 16
    assert (rank > level) == (score > threshold.quantile(level))


def test_levels_out_of_range_flag_everything_or_nothing():
    threshold = make("window")
    threshold.update(stream(64))
    assert (threshold.quantile(-0.01), threshold.quantile(1.0)) == (-INF, INF)


@pytest.mark.parametrize("batch", [1, 10, 64, 100])
def test_the_fixed_threshold_is_that_of_the_first_n_scores_for_ever(batch):
    threshold, scores = FixedThreshold(0.9, n=64), stream(300)
    run(threshold, torch.cat((scores, scores + 50)), batch)
    assert threshold.threshold == np.quantile(scores[:64].numpy(), 0.9, method="inverted_cdf")


@pytest.mark.parametrize("name", NAMES)
def test_before_it_is_ready_the_threshold_is_nan_and_flags_nothing(name):
    threshold = make(name)
    threshold.update(stream(63))
    assert not threshold.ready and threshold.threshold.isnan()
    assert not threshold.is_ood(torch.tensor([100.0, INF])).any()
    threshold.update(stream(1))
    assert threshold.ready and threshold.threshold.isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_scores_that_are_not_finite_are_neither_learnt_nor_flagged_as_nan(name):
    threshold = make(name, min_samples=32)
    run(threshold, stream(100), 10)
    before = copy.deepcopy(threshold.state_dict())
    assert not threshold.is_ood(torch.tensor([NAN])).any()
    threshold.update(torch.tensor([NAN, INF, -INF]))
    after = threshold.state_dict()
    before.pop("_extra_state"), after.pop("_extra_state")
    torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)


STREAMS = {
    "drifting up": lambda t: stream(len(t)) + 0.05 * t,  # 5 standard deviations per 100 samples
    "drifting down": lambda t: stream(len(t)) - 0.05 * t,
    "constant": lambda t: torch.ones(len(t)),
    "two values": lambda t: (stream(len(t)) > 1).float(),
    "rounded": lambda t: stream(len(t)).round(),
    "jumping": lambda t: stream(len(t)) + 100 * ((t // 300) % 2),
    "growing": lambda t: 1.02**t,
}


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(5, 200),
    p=st.sampled_from([0.01, 0.8, 0.95, 0.999]),
    eta=st.sampled_from([1e-9, 1e-6, 0.005, 0.05, 1.0]),
    name=st.sampled_from(sorted(STREAMS)),
)
def test_the_tracking_flag_rate_has_exactly_the_error_of_its_bound(batch, p, eta, name):
    scores = STREAMS[name](torch.arange(2000.0))
    threshold = TrackingThreshold(p, n=64, min_samples=64, eta=eta)
    flags, judged = run(threshold, scores, batch)
    error = abs(flags / judged - (1 - p))
    assert threshold.n_judged == judged
    assert error == pytest.approx(float(threshold.rate_bound), rel=1e-4, abs=1e-8)
    # The level is where the flags have brought it, and never leaves [0, 1] by more than a batch.
    level = eta * (flags - (1 - p) * judged)
    assert float(threshold.level) - p == pytest.approx(level, rel=1e-3, abs=1e-6)
    assert error <= (1 + eta * batch) / (eta * judged)


def test_a_state_of_before_the_flags_were_counted_goes_on_from_its_level():
    threshold, loaded = (TrackingThreshold(0.9, 64, 64) for _ in range(2))
    run(threshold, stream(500), 10)
    state = threshold.state_dict()
    excess = state.pop("excess")
    loaded.load_state_dict(state)
    assert int(loaded.excess) == pytest.approx(int(excess), rel=1e-3)
    assert float(loaded.rate_bound) == pytest.approx(float(threshold.rate_bound), rel=1e-3)


def test_drift_that_breaks_the_window_does_not_break_tracking():
    scores = stream(20_000) + 0.05 * torch.arange(20_000)
    window, tracking = (run(make(name), scores, 64) for name in ("window", "tracking"))
    assert window[0] / window[1] > 0.5
    assert tracking[0] / tracking[1] == pytest.approx(0.05, abs=0.012)


def test_the_rate_bound_is_nan_before_anything_was_judged():
    assert TrackingThreshold().rate_bound.isnan()


@pytest.mark.parametrize("name", NAMES)
def test_a_state_saved_through_a_parent_module_goes_on_as_if_never_stopped(name):
    source, target = (nn.ModuleDict({"threshold": make(name)}) for _ in range(2))
    run(source["threshold"], stream(150), 10)  # past the 64 scores held
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    target.load_state_dict(torch.load(file, weights_only=True))
    results = [run(m["threshold"], stream(200, seed=1) + 1, 10) for m in (source, target)]
    assert results[0] == results[1]
    assert source["threshold"].threshold == target["threshold"].threshold
