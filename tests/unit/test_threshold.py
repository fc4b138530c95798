"""Thresholds: exact rates whatever the scores and the batch size, and what that costs in recall."""

from __future__ import annotations

import io
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from solo_ood.selection.threshold import (
    WINDOW,
    FixedThreshold,
    QuotaThreshold,
    Threshold,
    make_threshold,
)
from solo_ood.settings.block import block_size
from solo_ood.settings.choices import THRESHOLDS
from solo_ood.settings.schema import ThresholdConfig

NAN, INF = float("nan"), float("inf")
BATCHES = (8, 24, 96, 384, 768, 1536, 8192)


def make(name: str, **kwargs) -> Threshold:
    return make_threshold(ThresholdConfig(name, **{"n": 64, **kwargs}))


def stream(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def run(threshold: Threshold, scores: Tensor, batch: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Feed the scores; the places in the stream that were judged, and whether each was flagged."""
    items = torch.arange(first, first + len(scores))
    done = [threshold.judge(*part) for part in zip(scores.split(batch), items.split(batch))]
    return torch.cat([places for places, _ in done]), torch.cat([flags for _, flags in done])


STREAMS = {
    "independent": lambda t: stream(len(t)),
    "drifting up": lambda t: stream(len(t)) + 0.05 * t,  # 5 standard deviations per 100 samples
    "drifting down": lambda t: stream(len(t)) - 0.05 * t,
    "constant": lambda t: torch.ones(len(t)),
    "two values": lambda t: (stream(len(t)) > 1).float(),
    "rounded": lambda t: stream(len(t)).round(),
    "jumping": lambda t: stream(len(t)) + 100 * ((t // 300) % 2),
    "growing": lambda t: 1.02 ** t.clamp(max=4000),
    "holes": lambda t: torch.where(t % 7 == 3, NAN, stream(len(t))),
}


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3000),
    p=st.sampled_from([0.01, 0.5, 0.8, 0.95, 0.999]),
    n=st.integers(2, 2500),
    name=st.sampled_from(sorted(STREAMS)),
)
def test_the_quota_is_exact_for_any_scores_in_any_batches(batch, p, n, name):
    scores = STREAMS[name](torch.arange(6000.0))
    threshold = QuotaThreshold(p, n)
    places, flagged = run(threshold, scores, batch)
    finite = scores.isfinite().nonzero().squeeze(1)
    judged = len(finite) // n * n
    assert places.tolist() == finite[:judged].tolist()
    rate, upto = 1 - Fraction(str(p)), 0
    for block in range(judged // n):
        part, values = flagged[block * n : block * n + n], scores[places[block * n : block * n + n]]
        upto += int(part.sum())
        assert abs(upto - rate * (block + 1) * n) <= Fraction(1, 2)
        # Nobody below the flagged ones is flagged, whatever happened to equal scores.
        if part.any() and not part.all():
            assert values[part].min() >= values[~part].max()
    assert (threshold.n_judged, threshold.n_flagged) == (judged, upto)
    if judged:
        assert abs(upto / judged - float(rate)) <= threshold.rate_bound + 1e-12
    for w in (100, WINDOW):
        sums = np.convolve(flagged.long().numpy(), np.ones(w, dtype=int), "valid")
        if len(flagged) >= w:
            worst = np.abs(sums / w - float(rate)).max()
            assert worst <= threshold.window_bound(w) + 1e-9
            if w == WINDOW:
                assert threshold.worst_window == pytest.approx(worst, abs=1e-6)


@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("kind", ["drifting up", "two values", "holes"])
def test_batches_change_no_verdict(name, kind):
    scores = STREAMS[kind](torch.arange(3000.0))
    whole = run(make(name, percentile=0.9), scores, 3000)
    for batch in (1, 7, 64, 1000):
        for got, expected in zip(run(make(name, percentile=0.9), scores, batch), whole):
            assert torch.equal(got, expected)


def rare_stream(kind: str, n: int = 60_000) -> tuple[Tensor, Tensor]:
    """Scores and the truth of a stream of which 5 % is rare."""
    rare = torch.rand(n, generator=torch.Generator().manual_seed(1)) < 0.05
    noise = stream(n)
    return {"perfect": noise.sigmoid() + 2 * rare, "noisy": noise + 2 * rare}[kind], rare


@pytest.mark.parametrize("kind", ["perfect", "noisy"])
@pytest.mark.parametrize("batch", BATCHES)
def test_recall_and_lift_are_those_of_the_best_fixed_quantile_in_hindsight(kind, batch):
    scores, rare = rare_stream(kind)
    places, flagged = run(QuotaThreshold(0.95), scores, batch)
    scores, rare = scores[places], rare[places]
    best = scores > scores.sort().values[int(0.95 * len(scores))]
    assert (flagged & rare).sum() >= 0.95 * (best & rare).sum()  # recall
    precision, best_s = rare[flagged].float().mean(), rare[best].float().mean()
    assert precision >= 0.95 * best_s  # and so the lift


@pytest.mark.parametrize("batch", BATCHES)
def test_the_flag_rate_of_a_step_spreads_no_more_than_a_binomial(batch):
    places, flagged = run(QuotaThreshold(0.95), stream(240_000), batch)
    rates = flagged[: len(places) // batch * batch].reshape(-1, batch).float().mean(dim=1)
    assert rates.std() <= 1.25 * (0.05 * 0.95 / batch) ** 0.5


@pytest.mark.parametrize("p", [0.5, 0.95, 0.99])
def test_recall_of_a_perfect_score_matches_the_docstring(p):
    rare = torch.rand(200_000, generator=torch.Generator().manual_seed(1)) < 1 - p
    threshold = QuotaThreshold(p)
    places, flagged = run(threshold, stream(len(rare)).sigmoid() + 2 * rare, 512)
    expected = 1 - math.sqrt(p / (2 * math.pi * (1 - p) * threshold.n))
    recall = (flagged & rare[places]).sum() / rare[places].sum()
    assert float(recall) == pytest.approx(expected, abs=0.012)


def test_equal_scores_are_told_apart_all_over_the_block():
    _, flagged = run(QuotaThreshold(0.9, 1000), torch.ones(1000), 50)
    assert flagged.reshape(10, 100).sum(dim=1).tolist() == [10] * 10


@pytest.mark.parametrize(
    ("p", "n"), [(0.8, 500), (0.95, 2000), (0.99, 10_000), (0.9999, 1_000_000)]
)
def test_a_block_holds_100_flags_by_default(p, n):
    assert block_size(p) == QuotaThreshold(p).n == make("quota", percentile=p, n=None).n == n


def test_the_candidates_are_all_that_can_still_be_flagged():
    threshold, scores = QuotaThreshold(0.9, 100), stream(100)
    seen: set[int] = set()
    for place in range(99):
        run(threshold, scores[place : place + 1], 1, first=place)
        held = {*threshold.undecided.tolist()}
        assert len(held) == min(10, place + 1)
        assert held - {place} <= seen or place == 0  # who left does not come back
        seen = held
    places, flagged = run(threshold, scores[99:], 1, first=99)
    assert {*places[flagged].tolist()} <= seen | {99}
    assert len(threshold.undecided) == 0


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3000),
    band=st.sampled_from([(0.75, 0.99), (0.5, 0.9), (0.01, 0.5), (0.9, 0.97)]),
    n=st.integers(100, 1500),
    name=st.sampled_from(sorted(STREAMS)),
)
def test_a_band_has_both_its_shares_exactly(batch, band, n, name):
    scores = STREAMS[name](torch.arange(5000.0))
    threshold = QuotaThreshold(band[0], n, band[1])
    places, flagged = run(threshold, scores, batch)
    low, high = (1 - Fraction(str(p)) for p in band)
    inside = 0
    for block in range(len(places) // n):
        part, values = flagged[block * n : block * n + n], scores[places[block * n : block * n + n]]
        order = values.argsort(stable=True)
        inside += int(part.sum())
        assert abs(inside - (low - high) * (block + 1) * n) <= Fraction(1, 2)
        if len(values.unique()) == n:  # the very ranks
            ranks = part[order].nonzero().squeeze(1)
            # Two quotas, each within 1 of its share, are between the top and the band.
            assert abs(n - 1 - int(ranks[-1]) - high * n) < 2
            assert abs(n - int(ranks[0]) - low * n) < 1.5
            assert ranks.tolist() == list(range(int(ranks[0]), int(ranks[-1]) + 1))
    assert threshold.n_flagged == inside
    if threshold.n_judged:
        assert abs(inside / threshold.n_judged - float(low - high)) <= threshold.rate_bound + 1e-12
    if threshold.n_judged >= WINDOW:
        assert threshold.worst_window <= threshold.window_bound() + 1e-6


def test_the_fixed_band_is_between_numpys_quantiles_of_the_first_n():
    threshold, scores = FixedThreshold(0.5, 101, 0.9), stream(300).round(decimals=1)
    _, flagged = run(threshold, scores, 7)
    low, high = np.quantile(scores[:101].numpy(), (0.5, 0.9), method="inverted_cdf")
    assert torch.equal(flagged, (scores > float(low)) & (scores <= float(high)))


def test_the_candidates_of_a_band_are_all_that_can_still_sink_into_it():
    scores, held = stream(100), set()
    threshold = QuotaThreshold(0.8, 100, 0.95)
    for place in range(100):
        held = {*threshold.undecided.tolist()}
        places, flagged = run(threshold, scores[place : place + 1], 1, first=place)
    assert len(places) == 100 and int(flagged.sum()) == 15
    assert {*places[flagged].tolist()} <= held | {99} and len(held) == 20


@settings(max_examples=40, deadline=None)
@given(
    p=st.sampled_from([0.05, 0.33, 0.5, 0.77, 0.95]),
    n=st.sampled_from([20, 33, 101]),
    batch=st.integers(1, 250),
)
def test_the_fixed_threshold_is_numpys_quantile_of_the_first_n_for_ever(p, n, batch):
    threshold, scores = (
        FixedThreshold(p, n),
        torch.cat((stream(150), stream(150) + 50)).round(decimals=1),
    )
    places, flagged = run(threshold, scores, batch)
    expected = np.quantile(scores[:n].numpy(), p, method="inverted_cdf")
    assert threshold.threshold == expected
    assert places.tolist() == list(range(300))
    assert torch.equal(flagged, scores > threshold.threshold)  # ties are not OOD


@pytest.mark.parametrize("name", THRESHOLDS)
def test_before_the_first_block_nothing_is_judged(name):
    threshold = make(name)
    places, flagged = run(threshold, stream(63), 10)
    assert len(places) == len(flagged) == threshold.n_judged == 0
    assert math.isnan(threshold.threshold) and math.isnan(threshold.rate_bound)
    places, flagged = run(threshold, stream(1), 1, first=63)
    assert places.tolist() == list(range(64)) and flagged.sum() in (3, 4)
    assert math.isfinite(threshold.threshold)


@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_stream_of_nothing_finite_is_not_kept(name):
    threshold = make(name)
    run(threshold, torch.tensor([NAN, INF, -INF]).repeat(1000), 30)
    assert threshold.n_judged == threshold.n_waiting == len(threshold._chunks) == 0


@pytest.mark.parametrize("level", [0.0, 1e-9, 0.3, 0.95, 1.0])
def test_quantiles_of_the_last_block(level):
    threshold, scores = make("quota"), stream(128)
    run(threshold, scores, 10)
    last = scores[64:].numpy()
    expected = np.quantile(last, level, method="inverted_cdf") if level else -INF
    assert threshold.quantile(level) == expected


@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("before", [30, 150, 1200])
def test_a_saved_state_goes_on_as_if_never_stopped(name, before):
    source, target = make(name), make(name)
    run(source, stream(before), 10)
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    target.load_state_dict(torch.load(file, weights_only=True))
    for got, expected in zip(*(run(t, stream(2000, seed=1) + 1, 10) for t in (target, source))):
        assert torch.equal(got, expected)
    assert repr(target.state_dict()) == repr(source.state_dict())


def test_a_state_does_not_keep_alive_what_was_judged():
    threshold = make("quota")
    run(threshold, stream(10_000), 5000)
    state = threshold.state_dict()
    assert all(
        len(state[key].untyped_storage()) <= 8 * 1100 for key in ("scores", "waiting", "tail")
    )
