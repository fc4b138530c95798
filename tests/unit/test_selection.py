"""One step of selection: score, judge, learn; what is flagged is queued one step later."""

from __future__ import annotations

import pytest
import torch
from selection_streams import B, D, common, make, step, warm


def test_a_batch_is_scored_before_it_is_learnt():
    selector = warm()
    step(selector, list(range(100, 108)), -common(1).expand(B, D))  # 8 times the same new thing
    selector.judge_pending()
    assert {*range(100, 108)} <= {*selector.queue}
    step(selector, list(range(200, 208)), -common(1).expand(B, D))  # now it is known
    selector.judge_pending()
    assert not {*range(200, 208)} & {*selector.queue}


def test_the_quota_of_a_block_is_queued_when_it_is_full():
    selector = make(threshold={"name": "quota", "n": 20, "percentile": 0.8})
    for t in range(5):  # the first two are learnt only: the rows 16 to 39 are scored
        step(selector, list(range(B * t, B * t + B)), common(B, seed=t))
    assert len(selector.queue) == 0  # 16 have arrived
    assert len(selector.undecided) == 4
    selector.judge_pending()
    assert len(selector.queue) == 4 and {*selector.queue} <= {*range(16, 36)}
    assert selector.counts["judged"] == 20 and selector.counts["flagged"] == 4


def test_of_other_data_only_files_that_stay_are_queued_when_their_block_is_full():
    queued = {}
    for stays in (lambda index: True, lambda index: index % 2 == 0):
        selector = make(threshold={"name": "quota", "n": 20, "percentile": 0.5})
        for t in range(5):
            step(selector, list(range(B * t, B * t + B)), common(B, seed=t))
        before = selector.state_dict()["threshold"]["waiting"].clone()
        state = selector.state_dict()["threshold"]["waiting"]
        selector.drop_changed_indexes(stays)  # 4 of the 24 rows that were scored are waiting
        assert torch.equal(state, before)  # a checkpoint that is being written is not changed
        step(selector, list(range(100, 120)), common(20, seed=9))
        selector.judge_pending()
        assert selector.counts["judged"] == 40 and selector.counts["flagged"] == 20
        queued[len(queued)] = {*selector.queue}
    assert queued[1] < queued[0] and all(i % 2 for i in queued[0] - queued[1])
    assert queued[0] - queued[1] <= {*range(36, 40)}


def test_what_is_flagged_enters_the_queue_one_step_later():
    selector = warm()
    step(selector, list(range(100, 108)), -common(B))
    assert not {*range(100, 108)} & {*selector.queue}
    step(selector, list(range(200, 208)), common(B))
    assert {*range(100, 108)} <= {*selector.queue}


@pytest.mark.parametrize("name", ["knn", "mahalanobis"])
def test_replays_feed_neither_the_scorer_nor_the_threshold(name):
    with_replays, without = (warm(scorer={"name": name}) for _ in range(2))
    for t in range(5):
        indexes, feats = list(range(100, 106)), common(6, seed=50 + t)
        step(with_replays, [*indexes, 1, 2], torch.cat((feats, -common(2))), n_replayed=2)
        step(without, indexes, feats)
    for part in ("scorer", "threshold"):
        a, b = (dict(getattr(s, part).state_dict()) for s in (with_replays, without))
        assert a.pop("_extra_state", 0) == b.pop("_extra_state", 0)
        torch.testing.assert_close(a, b, equal_nan=True)
    assert with_replays.counts["judged"] == without.counts["judged"]
    assert (with_replays.counts["replayed"], without.counts["replayed"]) == (8, 0)


def replay_two(release: float) -> set[int]:
    """Replay 500, a copy of something known, and 501, which is odd; which of them stay?"""
    selector = warm(queue={"release": release})
    selector.queue.push([500, 501])
    known = selector.scorer.reference.rows[:1]
    feats = torch.cat((common(6, seed=99), known, -common(1)))
    step(selector, [*range(100, 106), 500, 501], feats, n_replayed=2)
    selector.judge_pending()
    return {500, 501} & {*selector.queue}


def test_a_replay_leaves_the_queue_once_it_is_not_above_the_release_quantile():
    assert replay_two(release=0.5) == {501}


def test_with_release_0_no_replay_leaves_for_its_score():
    assert replay_two(release=0.0) == {500, 501}


def test_the_embedding_is_the_mean_of_the_normalised_crops():
    crops = [torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.5]])]
    torch.testing.assert_close(make(dim=2).embed(crops), torch.tensor([[0.3, 0.9]]))


@pytest.mark.parametrize("name", ["knn", "mahalanobis"])
def test_padding_rows_change_nothing(name):
    filled, plain = (warm(scorer={"name": name}) for _ in range(2))
    for t in range(5):
        indexes, feats = [*range(100, 106), 1, 2], torch.cat((common(6, seed=t), -common(2)))
        step(filled, indexes, feats, n_replayed=2, padded_size=11)
        step(plain, indexes, feats, n_replayed=2)
    for part in ("scorer", "threshold"):
        a, b = (dict(getattr(s, part).state_dict()) for s in (filled, plain))
        a.pop("_extra_state", 0), b.pop("_extra_state", 0)  # how many were fed
        torch.testing.assert_close(a, b, equal_nan=True)
    for selector in (filled, plain):
        selector.judge_pending()
    assert filled.counts == plain.counts and filled.counts["not_finite"] == 0
    assert list(filled.queue) == list(plain.queue)


def test_a_batch_larger_than_every_process_was_told_is_an_error():
    with pytest.raises(ValueError, match="at most 7 rows, .* got 8. Set optimizer.batch_size"):
        step(warm(), list(range(100, 108)), common(B), padded_size=7)
