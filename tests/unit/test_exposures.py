"""Caps on the replays of an index, against a list of all draws."""

from __future__ import annotations

import io
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solo_ood.selection.exposures import Exposures
from solo_ood.selection.rare_queue import RareQueue


def queue_of(n: int, epoch: float = math.inf, capacity: int = 100, **caps) -> RareQueue:
    queue = RareQueue(capacity, exposures=Exposures(**caps))
    queue.exposures.epoch = epoch
    queue.push(range(n))
    return queue


def reloaded(queue: RareQueue) -> RareQueue:
    """A queue with the same caps and the state of ``queue``, through a file."""
    file = io.BytesIO()
    torch.save(queue.state_dict(), file)
    file.seek(0)
    caps = queue.exposures
    other = RareQueue(
        queue.capacity, queue.max_replays, queue.min_age, 9,
        Exposures(caps.max_per_run, caps.max_per_epoch),
    )  # fmt: skip
    other.exposures.epoch = caps.epoch
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@settings(max_examples=150, deadline=None)
@given(
    epoch=st.integers(1, 12),
    per_epoch=st.one_of(st.none(), st.integers(1, 5), st.sampled_from([0.3, 0.5, 1.5])),
    per_run=st.one_of(st.none(), st.integers(1, 6)),
    rows=st.integers(1, 6),
    processes=st.integers(1, 3),
    pushed=st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=5, max_size=40),
    gone=st.lists(st.lists(st.integers(0, 9), max_size=2), min_size=40, max_size=40),
    cut=st.integers(0, 40),
)
def test_no_index_is_drawn_more_often_than_the_caps_say_and_none_less_than_they_let(
    epoch, per_epoch, per_run, rows, processes, pushed, gone, cut
):
    queue = queue_of(0, epoch, 8, max_per_run=per_run, max_per_epoch=per_epoch)
    rest = 0 if per_epoch is None else math.ceil(epoch / per_epoch)
    asked, drawn = rows * processes, []  # step and index of every draw
    for step, (new, left) in enumerate(zip(pushed, gone)):
        if step == cut:
            queue = reloaded(queue)
        queue.step = step
        queue.release(left)
        queue.push(new)
        total = Counter(index for _, index in drawn)
        last = {index: at for at, index in drawn}
        assert not any(total[i] == per_run for i in queue)
        free = [i for i in queue if i not in last or step - last[i] >= rest]
        if per_run is None and per_epoch is None:
            expected = asked if asked <= len(free) else 0
        else:
            share = asked if not rest else min(asked, math.ceil(len(queue) / rest))
            share += -share % processes  # a row for each of them
            expected = min(share, len(free)) // processes * processes
        assert queue.can_draw(asked, processes) == (expected > 0)
        got = queue.draw(asked, processes)
        assert len(got) == len(set(got)) == expected and set(got) <= set(free)
        drawn += [(step, index) for index in got]
    for index, n in Counter(index for _, index in drawn).items():
        steps = [at for at, i in drawn if i == index]
        assert per_run is None or n <= per_run
        if per_epoch is not None:
            most = math.ceil(epoch / rest)
            assert most <= math.ceil(per_epoch)
            assert all(sum(start <= at < start + epoch for at in steps) <= most for start in steps)


@pytest.mark.parametrize(("n_queued", "expected"), [(4, 8), (20, 40), (300, 400)])
def test_the_ratio_falls_with_the_number_queued(n_queued, expected):
    """4 rows a step in 100 steps of an epoch, each index at most twice."""
    queue, drawn = queue_of(n_queued, 100, 300, max_per_epoch=2), []
    for step in range(100):
        queue.step = step
        drawn.append(len(queue.draw(4)))
    assert sum(drawn) == expected


def test_an_index_used_up_never_comes_back_and_others_do():
    queue = queue_of(2, max_per_run=3)
    for step in range(3):
        queue.step = step
        assert sorted(queue.draw(2)) == [0, 1]
        if step == 0:
            queue.release([1])  # a stay ends, the count goes on
            queue.push([1])
    assert len(queue) == 0 and queue.departures["worn_out"] == 2
    queue.push([0, 1, 2])
    assert list(queue) == [2] and list(reloaded(queue)) == [2]


def test_a_lower_cap_at_a_resume_takes_out_what_it_forbids():
    queue = queue_of(3, max_per_run=9)
    queue.draw(3), queue.draw(3)
    queue.push([3])
    queue.exposures.max_per_run = 2  # as in the new run's configuration
    assert list(reloaded(queue)) == [3]


@settings(max_examples=60, deadline=None)
@given(
    epoch=st.integers(1, 6),
    drawn=st.lists(st.lists(st.integers(0, 5), unique=True, max_size=4), max_size=30),
    cut=st.integers(0, 30),
)
def test_replays_per_epoch_are_those_of_the_last_whole_epoch(epoch, drawn, cut):
    """Epochs are counted from the first replay, and from the first one after each one's end."""
    counted, start, current, expected = Exposures(), None, [], None
    counted.epoch = epoch
    for step, indexes in enumerate(drawn):
        if step == cut:
            state, counted = counted.state_dict(), Exposures()
            counted.epoch = epoch
            counted.load_state_dict(state)
        if not indexes:
            continue
        counted.note(indexes, step)
        start = step if start is None else start
        if step - start >= epoch:
            expected, start, current = len(current) / len(set(current)), step, []
        current += indexes
        assert counted.last_epoch == expected
    assert counted.distinct == len({index for indexes in drawn for index in indexes})


def test_a_checkpoint_of_before_says_which_were_replayed():
    queue = queue_of(5)
    queue.draw(3)
    state = queue.state_dict()
    ever = sorted(index for index, _ in state.pop("exposures")["run"].tolist())
    other = queue_of(0)
    other.load_state_dict({**state, "ever_drawn": torch.tensor(ever)})
    assert other.replay_counts() == queue.replay_counts()
    assert other.draw(2) == queue.draw(2)
