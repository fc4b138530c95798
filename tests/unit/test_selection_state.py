"""The selector's state: the same on every process, and carried over a reload."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
import torch
from selection_streams import B, D, common, make, step, warm
from torch import Tensor

from solo_ood.selection.scorers import ExemplarScorer
from solo_ood.selection.selector import RareSelector
from solo_ood.settings.choices import SCORERS


def plain(state: Any) -> Any:
    """A nested state as nested lists, whose ``repr`` is exact and the same for NaN."""
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, Tensor) else state


def saved(selector: RareSelector) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(selector.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_two_processes_end_up_with_the_state_of_one_that_saw_all_rows():
    ranks, single = [make(rare_classes=[1]) for _ in range(2)], make(rare_classes=[1])
    for t in range(14):
        m = 2 if t > 8 else 0
        shares = []
        for rank in (0, 1):
            indexes = torch.arange(B) + B * (2 * t + rank)
            feats = common(B, seed=2 * t + rank) * (-1 if t == 9 else 1)
            shares.append((indexes, ranks[rank].embed([feats]), (indexes % 3 == 0).long()))
        pairs = list(zip(*shares))

        def gather(x: Tensor, pairs: Any = pairs) -> Tensor:
            return next(torch.cat(pair) for pair in pairs if any(x is share for share in pair))

        for selector, share in zip(ranks, shares):
            selector.step(*share, n_replayed=m, gather=gather)
        # The same rows in one process: all fresh ones first.
        joined = [torch.cat([x[: B - m] for x in p] + [x[B - m :] for x in p]) for p in pairs]
        single.step(*joined, n_replayed=2 * m)
    states = [plain(saved(selector)) for selector in ranks]
    assert repr(states[0]) == repr(states[1])
    assert list(ranks[0].queue) == list(single.queue) and len(single.queue) > 10
    assert ranks[0].counts == single.counts
    torch.testing.assert_close(ranks[1].scorer.reference.rows, single.scorer.reference.rows)
    assert ranks[1].threshold.threshold == single.threshold.threshold


def run(selector: RareSelector, steps: range) -> None:
    for t in steps:
        rare = selector.queue.draw(2)
        fresh = list(range(B * t, B * t + B - len(rare)))
        step(selector, fresh + rare, common(B, seed=t), n_replayed=len(rare))


@pytest.mark.parametrize(
    ("scorer", "threshold"),
    [(scorer, "quota") for scorer in SCORERS] + [("knn", "fixed")],
)
def test_going_on_after_a_reload_equals_the_uninterrupted_run(scorer, threshold):
    exemplar = {"exemplars": [0], "feats": "eval"} if scorer == "exemplar" else {}
    blocks = {"scorer": {"name": scorer, **exemplar}, "threshold": {"name": threshold}}
    whole, resumed = make(**blocks), make(**blocks)
    if isinstance(whole.scorer, ExemplarScorer):  # the other one has them from the state
        whole.scorer.set_exemplars(-common(5, seed=99))
    run(whole, range(23))
    state = saved(whole)
    assert state["pending"] is not None
    resumed.load_state_dict(state)
    for selector in (whole, resumed):
        run(selector, range(23, 40))
    assert whole.counts["replayed"]
    assert repr(plain(resumed.state_dict())) == repr(plain(whole.state_dict()))


@pytest.mark.parametrize(
    ("dim", "blocks", "match"),
    [
        (D + 1, {}, "feature size=8, got feature size=9"),
        (D, {"scorer": {"name": "random"}}, "scorer.name='knn', got scorer.name='random'"),
        (D, {"threshold": {"name": "quota"}}, "threshold.name='fixed', got threshold.name='quota'"),
        (D, {"scorer": {"n_reference": 32}}, "scorer.n_reference=64, got scorer.n_reference=32"),
        (D, {"scorer": {"normalize": False}}, "normalize=True, got scorer.normalize=False"),
        (D, {"scorer": {"feats": "eval"}}, "feats='train', got scorer.feats='eval'"),
        (D, {"threshold": {"n": 64}}, "threshold.n=32, got threshold.n=64"),
        # Numbers of kept crops are no dataset indexes.
        (D, {"queue": {"store": "crops"}}, "store='indexes', got queue.store='crops'"),
    ],
)
def test_the_state_of_another_configuration_is_an_error(dim, blocks, match):
    with pytest.raises(ValueError, match=match):
        make(dim, **blocks).load_state_dict(saved(warm()))


def test_changed_settings_warn_at_resume_and_apply():
    state = saved(warm())
    selector = make(scorer={"k": 3}, queue={"capacity": 16})
    said = "checkpoint, scorer.k=1, queue.capacity=64, got scorer.k=3, queue.capacity=16. The new"
    with pytest.warns(RuntimeWarning, match=said):
        selector.load_state_dict(state)
    assert selector.queue.capacity == 16 and selector.scorer.k == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make().load_state_dict(state)
