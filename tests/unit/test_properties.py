"""What holds for every scorer and threshold together, whatever the stream is."""

from __future__ import annotations

import io
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from solo_ood.selection.diverse import DiverseAdmission
from solo_ood.selection.exposures import Exposures
from solo_ood.selection.rare_queue import RareQueue
from solo_ood.selection.scorers import ExemplarScorer, Scorer, make_scorer
from solo_ood.selection.selector import RareSelector
from solo_ood.selection.threshold import QuotaThreshold, make_threshold
from solo_ood.settings.choices import SCORERS, THRESHOLDS
from solo_ood.settings.schema import ScorerConfig, parse, release_level

D, CLASSES = 4, 3
REAL = ("knn", "mahalanobis", "exemplar")
NAN, INF = float("nan"), float("inf")

# One row of features by name; most are ordinary, the others what networks give that diverge or die.
ROWS = {
    "ordinary": lambda g: 1 + 0.3 * torch.randn(D, generator=g),
    "odd": lambda g: -1 + 0.3 * torch.randn(D, generator=g),
    "zero": lambda g: torch.zeros(D),
    "constant": lambda g: torch.ones(D),
    "tiny": lambda g: 1e-30 * torch.randn(D, generator=g),
    "large": lambda g: 1e14 * torch.randn(D, generator=g).clamp(-2, 2),
    "nan": lambda g: torch.tensor([NAN, 1.0, 1.0, 1.0]),
    "inf": lambda g: torch.tensor([1.0, INF, 1.0, 1.0]),
    "minus inf": lambda g: torch.tensor([1.0, -INF, INF, 1.0]),
    "huge": lambda g: torch.tensor([1.0, 1.0, 1e38, 1.0]),
}
BAD = ("nan", "inf", "minus inf", "huge")
kinds = st.one_of(st.just("ordinary"), st.just("ordinary"), st.sampled_from(sorted(ROWS)))


def rows(names: list[str], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([ROWS[name](generator) for name in names]) if names else torch.zeros(0, D)


def scorer_of(name: str, normalize: bool = True, min_samples: int = 4) -> Scorer:
    cfg = ScorerConfig(name, n_reference=16, min_samples=min_samples, normalize=normalize)
    scorer = make_scorer(cfg, D, CLASSES)
    if isinstance(scorer, ExemplarScorer):
        scorer.set_exemplars(rows(["odd"] * 3, seed=9))
    return scorer


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(REAL),
    normalize=st.booleans(),
    stream=st.lists(st.lists(kinds, max_size=10), max_size=6),
    queries=st.lists(kinds, min_size=1, max_size=8),
    data=st.data(),
)
def test_score_depends_on_its_own_row_only(name, normalize, stream, queries, data):
    """Ready after min_samples rows; each score the same alone, in any order, and among bad ones."""
    scorer, fed = scorer_of(name, normalize), 0
    for number, names in enumerate(stream):
        assert scorer.ready == (fed >= 4) and scorer.n_fed == fed
        scorer.partial_fit(rows(names, number))
        fed += len(names)
    if fed < 4:
        scorer.partial_fit(rows(["ordinary"] * 4, 7))
    feats = rows(queries, seed=8)
    before = {k: v.clone() for k, v in scorer.named_buffers()}
    scores = scorer.ood_score(feats)
    assert scores.dtype == torch.float32 and scores.shape == (len(queries),)
    for query, score in zip(queries, scores):
        assert not score.isposinf()
        assert query not in BAD or score.isnan()
    order = data.draw(st.permutations(range(len(queries))))
    near = {"rtol": 1e-4, "atol": 1e-5, "equal_nan": True}  # sums in another order
    torch.testing.assert_close(scorer.ood_score(feats[order]), scores[order], **near)
    alone = torch.cat([scorer.ood_score(row[None]) for row in feats])
    torch.testing.assert_close(alone, scores, **near)
    for key, value in scorer.named_buffers():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0, equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(REAL),
    normalize=st.booleans(),
    stream=st.lists(st.lists(kinds, max_size=10), max_size=6),
)
def test_unusable_rows_change_nothing_learnt(name, normalize, stream):
    dirty, clean = (scorer_of(name, normalize, min_samples=0) for _ in range(2))
    dirty.refresh = clean.refresh = 1  # the factor of a covariance is that of the last update
    for number, names in enumerate([*stream, ["ordinary"] * 4]):
        feats = rows(names, number)
        good = [row for row, kind in enumerate(names) if kind not in BAD]
        dirty.partial_fit(feats)
        clean.partial_fit(feats[good])
    mine, theirs = dict(dirty.named_buffers()), dict(clean.named_buffers())
    for key, value in mine.items():
        # A batch's sums have other lengths, which may change the last bits of large numbers.
        scale = float(theirs[key].nan_to_num().abs().max()) if value.is_floating_point() else 0
        torch.testing.assert_close(
            value, theirs[key], rtol=1e-3, atol=1e-5 * max(1.0, scale), equal_nan=True
        )
    assert all(mine[key].isfinite().all() for key in mine if key.startswith("moments"))


# The first ones are the warm-up of scorer, threshold and queue.
steps = st.lists(st.lists(kinds, min_size=3, max_size=3), min_size=8, max_size=25)
blocks = st.fixed_dictionaries(
    {
        "scorer": st.sampled_from(list(SCORERS)),
        "threshold": st.sampled_from(list(THRESHOLDS)),
        "percentile": st.sampled_from([0.5, 0.9]),
        "normalize": st.booleans(),
        "release": st.sampled_from([0.0, 0.5]),
        "capacity": st.sampled_from([2, 6]),
        "max_replays": st.sampled_from([None, 1, 3]),
        "min_age": st.integers(0, 2),
        "max_replays_per_run": st.sampled_from([None, None, 2]),
        "max_replays_per_epoch": st.sampled_from([None, None, 2.0]),
        "min_distance": st.sampled_from([None, None, 0.05, 1.0]),
    }
)
QUEUE = ("capacity", "max_replays", "min_age", "max_replays_per_run", "max_replays_per_epoch")
QUEUE += ("min_distance",)
EPOCH = 5  # batches


def selector_of(block: dict[str, Any], exemplars: bool = True) -> RareSelector:
    name = block["scorer"]
    exemplar = {"exemplars": [0], "feats": "eval"} if name == "exemplar" else {}
    cfg = parse(
        {
            "scorer": {
                "name": name,
                "n_reference": 8,
                "min_samples": 4,
                "normalize": block["normalize"],
                **exemplar,
            },
            "threshold": {
                "name": block["threshold"],
                "n": 10,
                "percentile": block["percentile"],
            },
            "queue": {key: block[key] for key in ("release", *QUEUE)},
            "rare_classes": [1],
        }
    )
    selector = RareSelector(cfg, D, CLASSES)
    selector.queue.exposures.epoch = EPOCH
    if isinstance(selector.scorer, ExemplarScorer) and exemplars:
        selector.scorer.set_exemplars(rows(["odd"] * 3, seed=9))
    return selector


def go(selector: RareSelector, stream: list[list[str]], first: int = 0) -> list[list[int]]:
    """Feed the stream, with replays where there are some; return the replays of each step."""
    replays = []
    for number, names in enumerate(stream, start=first):
        replays.append(selector.queue.draw(1))
        step(selector, number, names, replays[-1])
    return replays


def step(selector: RareSelector, number: int, names: list[str], replay: list[int]) -> None:
    indexes, feats, targets = batch_of(selector, number, names, replay)
    selector.step(indexes, feats, targets, len(replay))


def batch_of(
    selector: RareSelector, number: int, names: list[str], replay: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    indexes = torch.tensor([*range(10 * number, 10 * number + len(names)), *replay])
    feats = rows([*names, *("odd" for _ in replay)], number)
    return indexes, selector.embed([feats, feats]), indexes % 4 - 1  # a fourth without a label


@settings(max_examples=50, deadline=None)
@given(block=blocks, stream=steps)
def test_every_row_is_counted_once_and_bad_ones_are_neither_flagged_nor_queued(block, stream):
    selector = selector_of(block)
    bad = [
        10 * number + row
        for number, names in enumerate(stream)
        for row, kind in enumerate(names)
        if kind in BAD
    ]
    scored_steps = 0
    for number, names in enumerate(stream):
        scored_steps += selector.scorer.ready
        go(selector, [names], number)
        assert not {*bad} & {*selector.queue}
        assert len(selector.queue) <= block["capacity"]
    selector.judge_pending()
    assert not {*bad} & {*selector.queue}
    count = selector.counts
    seen = [10 * number + row for number in range(len(stream)) for row in range(3)]
    seen = seen[len(seen) - 3 * scored_steps :]
    waiting = len(selector.threshold.state_dict()["scores"])
    assert waiting < 10
    # The oracle says minus infinity, never rare, of what has no label.
    unlabelled = sum(i % 4 == 0 for i in seen) if block["scorer"] == "oracle" else 0
    if block["scorer"] in ("random", "random-fresh", "oracle"):  # they do not look at the features
        assert count["judged"] + waiting + unlabelled >= len(seen) - count["not_finite"]
    assert count["judged"] + waiting + count["not_finite"] <= len(seen)
    assert 0 <= count["flagged_rare"] <= min(count["flagged"], count["rare"])
    assert count["flagged"] <= count["judged"] and count["rare"] <= count["judged"]
    assert selector.threshold.n_judged == count["judged"]
    if isinstance(selector.threshold, QuotaThreshold):
        assert abs(count["flagged"] - (1 - block["percentile"]) * count["judged"]) < 0.51


@settings(max_examples=40, deadline=None)
@given(block=blocks, stream=steps, cut=st.integers(0, 25))
def test_a_selector_saved_at_any_step_goes_on_as_if_never_stopped(block, stream, cut):
    whole, resumed = selector_of(block), selector_of(block, exemplars=False)
    go(whole, stream[:cut])
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    rest = stream[cut:]
    assert go(whole, rest, cut) == go(resumed, rest, cut)
    for one, other in zip(leaves(whole.state_dict()), leaves(resumed.state_dict()), strict=True):
        if isinstance(one, Tensor):
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        else:
            assert repr(one) == repr(other)


def leaves(state: Any) -> list[Any]:
    if isinstance(state, dict):
        return [leaf for key in sorted(state) for leaf in leaves(state[key])]
    return [state]


@settings(max_examples=40, deadline=None)
@given(block=blocks, stream=steps)
def test_a_step_is_to_score_to_judge_to_queue_and_only_then_to_learn(block, stream):
    """The selector beside its own parts, called one after the other without any of its code."""
    selector, parts = selector_of(block), selector_of(block)
    cfg, scorer = parts.cfg, parts.scorer
    threshold = make_threshold(cfg.threshold)
    caps = Exposures(block["max_replays_per_run"], block["max_replays_per_epoch"])
    caps.epoch = EPOCH
    diverse = DiverseAdmission(block["min_distance"])
    limits = (block[key] for key in ("capacity", "max_replays", "min_age"))
    queue = RareQueue(*limits, parts.seed, caps)
    pending = None
    level = release_level(cfg)
    for number, names in enumerate(stream):
        replay = queue.draw(1)
        assert selector.queue.draw(1) == replay
        step(selector, number, names, replay)
        if pending is not None:  # what was scored is judged one step later
            replayed, replayed_scores, fresh_indexes, fresh_scores, looked_at = pending
            low = threshold.quantile(level)
            queue.release([i for i, s in zip(replayed, replayed_scores) if s <= low])
            judged, flagged = threshold.judge(fresh_scores, fresh_indexes)
            new = judged[flagged].tolist()
            if block["min_distance"] is not None:
                diverse.look(*looked_at)
                new = diverse.admitted(new, queue)
            queue.push(new)
        queue.step += 1
        pending = None
        indexes, feats, targets = batch_of(parts, number, names, replay)
        fresh = len(names)
        if scorer.ready:
            scores = scorer.ood_score(feats, targets, indexes)
            pending = (replay, scores[fresh:], indexes[:fresh], scores[:fresh], (indexes, feats))
        scorer.partial_fit(feats[:fresh], targets[:fresh], indexes[:fresh])
        assert list(selector.queue) == list(queue)
