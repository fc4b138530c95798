"""Diverse admission, against cosine distances of SciPy and against sums of whole numbers."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cosine
from selection_streams import B, common, make, step
from torch import Tensor

from solo_ood.selection.diverse import DiverseAdmission, whole_numbers
from solo_ood.selection.exposures import Exposures
from solo_ood.selection.rare_queue import RareQueue

D = 3


def feats_of(n: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def reloaded(diverse: DiverseAdmission) -> DiverseAdmission:
    file = io.BytesIO()
    torch.save(diverse.state_dict(), file)
    file.seek(0)
    other = DiverseAdmission(diverse.min_distance)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@settings(max_examples=100, deadline=None)
@given(
    d=st.floats(0.05, 1.5),
    scale=st.sampled_from([1.0, 1e-20, 1e15]),
    capacity=st.integers(1, 8),
    flagged=st.lists(st.lists(st.integers(0, 15), max_size=5), min_size=1, max_size=12),
    cut=st.integers(0, 12),
)
def test_what_enters_is_as_far_as_asked_from_all_that_are_inside(d, scale, capacity, flagged, cut):
    diverse, queue, latest = DiverseAdmission(d), RareQueue(capacity), {}
    inside, turned_away = [], 0
    for number, indexes in enumerate(flagged):
        if number == cut:
            diverse = reloaded(diverse)
        seen = feats_of(16, number, scale)  # a newer look at all of them
        diverse.look(torch.arange(16), seen)
        latest.update(enumerate(seen.double().numpy()))
        expected = []
        for index in dict.fromkeys(indexes):
            if index in inside:
                continue
            distances = [cosine(latest[index], latest[other]) for other in inside + expected]
            assume(all(abs(x - d) > 1e-3 for x in distances))  # apart from rounding
            if all(x >= d for x in distances):
                expected.append(index)
            else:
                turned_away += 1
        assert diverse.admitted(indexes, queue) == expected
        queue.push(expected)
        inside = (inside + expected)[-capacity:]
        assert list(queue) == inside
        diverse.keep(queue)
    assert diverse.n_turned_away == turned_away


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.integers(-(10**6), 10**6), min_size=4, max_size=4), min_size=2, max_size=6
    ),
    order=st.permutations(range(4)),
    power=st.integers(-20, 20),
)
def test_the_verdict_is_the_same_in_any_order_of_summation(rows, order, power):
    """Even where a pair is exactly at the smallest distance."""
    feats = torch.tensor(rows, dtype=torch.float32) / 7
    numbers = whole_numbers(feats)
    assert numbers.abs().max() <= 2**14
    sums = [[sum(x * y for x, y in zip(a, b)) for b in numbers.tolist()] for a in numbers.tolist()]
    assume(sums[0][0] and sums[1][1])
    d = 1 - sums[0][1] / (sums[0][0] * sums[1][1]) ** 0.5
    assume(0 < d <= 2)
    verdicts = []
    for variant in (feats, feats[:, list(order)], feats * 2.0**power):
        diverse = DiverseAdmission(d)
        diverse.look(torch.arange(len(rows)), variant)
        verdicts.append(diverse.admitted(range(len(rows)), RareQueue(9)))
    assert verdicts[0] == verdicts[1] == verdicts[2]


def test_rows_without_a_direction_or_a_sample_are_near_to_nothing():
    diverse = DiverseAdmission(0.5)
    feats = torch.tensor([[1.0, 0], [0, 0], [0, 0], [float("nan"), 1], [1, 0]])
    diverse.look(torch.tensor([0, 1, 2, 3, -1]), feats)
    assert diverse.admitted([0, 1, 2, 3], RareQueue(9)) == [0, 1, 2, 3]
    assert diverse.state_dict()["indexes"].tolist() == [0, 1, 2]


def test_one_that_the_queue_does_not_take_turns_nobody_away():
    queue = RareQueue(9, exposures=Exposures(max_per_run=1))
    queue.push([0])
    queue.draw(1)  # used up
    diverse = DiverseAdmission(0.5)
    diverse.look(torch.arange(2), torch.ones(2, D))
    assert diverse.admitted([0, 1], queue) == [1] and diverse.n_turned_away == 0


def pushed(d: float | None) -> tuple[set[int], float]:
    """Queue what is flagged of a stream with 4 copies of each of two odd samples, 80 to 87."""
    selector = make(queue={"min_distance": d, "release": 0.0})
    for t in range(10):
        step(selector, list(range(B * t, B * t + B)), common(B, seed=t))
    odd = torch.stack((-common(1)[0], common(1)[0] * torch.tensor([1.0, -1] * 4)))
    step(selector, list(range(80, 88)), odd.repeat(4, 1))
    selector.judge_pending()
    return {i for i in selector.queue if i >= 80}, selector.metrics().get("turned_away", -1)


def test_of_copies_the_first_one_enters_the_queue():
    assert pushed(None) == ({*range(80, 88)}, -1)
    entered, turned_away = pushed(0.01)
    assert entered == {80, 81} and turned_away >= 6


def test_features_are_kept_of_what_is_queued_or_may_be_only():
    selector = make(queue={"min_distance": 0.1}, threshold={"name": "quota", "n": 40})
    for t in range(40):
        step(selector, list(range(B * t, B * t + B)), common(B, seed=t))
    selector.judge_pending()
    kept = {*selector.state_dict()["diverse"]["indexes"].tolist()}
    assert {*selector.queue} <= kept <= {*selector.queue, *selector.undecided}
    assert len(kept) < 60


@pytest.mark.parametrize("lost", ["features", "lever"])
def test_a_checkpoint_without_features_goes_on_with_those_to_come(lost):
    """Saved with the lever off: what is queued is near to nothing until it is looked at."""
    before = make()
    for t in range(10):
        step(before, list(range(B * t, B * t + B)), common(B, seed=t))
    state = before.state_dict()
    if lost == "lever":
        state.pop("diverse")
    after = make(queue={"min_distance": 0.1})
    state["settings"]["queue.min_distance"] = 0.1
    after.load_state_dict(state)
    step(after, list(range(80, 88)), -common(B))
    step(after, list(range(90, 98)), common(B))
    assert 80 in after.queue and after.metrics()["turned_away"] >= 7
