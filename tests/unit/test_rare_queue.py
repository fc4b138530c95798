"""The FIFO against an ``OrderedDict``, and its draws, ages and state."""

from __future__ import annotations

import io
import random
from collections import Counter, OrderedDict

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from solo_ood.selection.rare_queue import DEPARTURES, RareQueue

indexes = st.lists(st.integers(0, 12), max_size=9)


class QueueMachine(RuleBasedStateMachine):
    """The queue, and a copy that is saved and loaded again, against index -> [entry, replays]."""

    @initialize(
        capacity=st.integers(1, 8),
        max_replays=st.one_of(st.none(), st.integers(1, 3)),
        min_age=st.integers(0, 3),
        seed=st.integers(0, 3),
    )
    def make(self, capacity, max_replays, min_age, seed):
        self.limits = {"capacity": capacity, "max_replays": max_replays, "min_age": min_age}
        self.queue = self.copy = RareQueue(**self.limits, seed=seed)
        self.model: OrderedDict[int, list[int]] = OrderedDict()
        self.step = 0
        self.drawn = Counter()
        self.departures = dict.fromkeys(DEPARTURES, 0)

    def both(self):
        return (self.queue,) if self.copy is self.queue else (self.queue, self.copy)

    def old_enough(self):
        return [i for i, (at, _) in self.model.items() if self.step - at >= self.limits["min_age"]]

    @rule(indexes=indexes)
    def push(self, indexes):
        for queue in self.both():
            queue.push(indexes)
        for index in indexes:
            self.model.setdefault(index, [self.step, 0])
            if len(self.model) > self.limits["capacity"]:
                self.model.popitem(last=False)
                self.departures["pushed_out"] += 1

    @rule(indexes=indexes, how=st.sampled_from(["released", "unreadable"]))
    def take_out(self, indexes, how):
        for queue in self.both():
            (queue.release if how == "released" else queue.discard)(indexes)
        for index in indexes:
            self.departures[how] += self.model.pop(index, None) is not None

    @rule(n=st.integers(0, 5))
    def draw(self, n):
        drawn = [queue.draw(n) for queue in self.both()]
        assert all(one == drawn[0] for one in drawn)
        assert len(drawn[0]) == (n if n <= len(self.old_enough()) else 0)
        assert len(set(drawn[0])) == len(drawn[0]) and set(drawn[0]) <= set(self.old_enough())
        for index in drawn[0]:
            self.model[index][1] += 1
            self.drawn[index] += 1
            if self.model[index][1] == self.limits["max_replays"]:
                del self.model[index]
                self.departures["worn_out"] += 1

    @rule(steps=st.integers(1, 3))
    def go_on(self, steps):
        self.step += steps
        for queue in self.both():
            queue.step = self.step

    @rule()
    def save_and_load(self):
        self.copy = RareQueue(**self.limits, seed=99)
        self.copy.load_state_dict(saved_and_loaded(self.queue))

    @invariant()
    def they_are_the_same(self):
        ages = [self.step - at for at, _ in self.model.values()]
        for queue in self.both():
            assert list(queue) == list(self.model) and len(queue) == len(self.model)
            assert [i for i in range(13) if i in queue] == sorted(self.model)
            assert queue.can_draw(2) == (len(self.old_enough()) >= 2) and not queue.can_draw(0)
            assert queue.mean_age == (sum(ages) / len(ages) if ages else 0)
            known = queue.replay_counts()
            assert known.pop("distinct_replayed") == len(self.drawn)
            assert known.pop("replays_per_sample", 0) == (
                sum(self.drawn.values()) / len(self.drawn) if self.drawn else 0
            )
            assert queue.departures == self.departures
            n_left = sum(self.departures.values())
            assert known == (
                {"share_released": self.departures["released"] / n_left} if n_left else {}
            )


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_it_equals_an_ordered_dict_under_any_operations_and_reloads = QueueMachine.TestCase


def filled(n: int, **kwargs) -> RareQueue:
    queue = RareQueue(capacity=n, **kwargs)
    queue.push(range(n))
    return queue


def test_an_index_pushed_again_keeps_its_place_and_its_replays():
    queue = filled(3, max_replays=2)
    queue.draw(3)
    queue.push([0, 1, 2])
    queue.push([3])
    assert list(queue) == [1, 2, 3]
    queue.draw(3)  # the second replay of 1 and 2
    assert list(queue) == [3]


def test_an_index_that_left_may_come_back_with_its_replays_forgotten():
    queue = filled(1, max_replays=2)
    queue.draw(1)
    queue.discard([0])
    queue.push([0])
    assert queue.draw(1) == [0] and 0 in queue


def test_an_index_waits_min_age_steps_before_it_is_drawn():
    queue = RareQueue(4, min_age=2)
    queue.push([0, 1])
    queue.step = 1
    queue.push([2])
    assert queue.draw(1) == []
    queue.step = 2
    assert sorted(queue.draw(2)) == [0, 1] and queue.draw(3) == []
    queue.step = 3
    assert sorted(queue.draw(3)) == [0, 1, 2]


def test_the_age_is_the_mean_number_of_steps_since_entry():
    queue = RareQueue(4)
    assert queue.mean_age == 0
    for queue.step in (1, 3):
        queue.push([queue.step])
    queue.step = 6
    assert queue.mean_age == ((6 - 1) + (6 - 3)) / 2


def test_draws_are_uniform():
    queue = filled(5)
    counts = Counter(index for _ in range(2000) for index in queue.draw(2))
    assert all(counts[index] == pytest.approx(800, rel=0.1) for index in range(5))


def test_draws_follow_the_seed_and_leave_the_global_rng_alone():
    before = random.getstate(), torch.get_rng_state()
    first, same, other = (filled(50, seed=seed).draw(9) for seed in (1, 1, 2))
    assert first == same != other
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])


def saved_and_loaded(queue: RareQueue) -> dict:
    file = io.BytesIO()
    torch.save(queue.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_state_loaded_safely_goes_on_with_the_same_draws_and_limits():
    queue, loaded = filled(9, max_replays=3, min_age=1), RareQueue(9, 3, 1, seed=5)
    for queue.step in range(1, 4):
        queue.draw(4)
    loaded.load_state_dict(saved_and_loaded(queue))
    for step in range(4, 12):
        for q in (queue, loaded):
            q.step = step
            q.push([100 + step])
        assert loaded.draw(3) == queue.draw(3)
        assert list(loaded) == list(queue) and loaded.mean_age == queue.mean_age
    assert loaded.step == queue.step


def test_the_state_is_a_copy():
    queue, loaded = filled(4, max_replays=2), RareQueue(4, 2)
    state = queue.state_dict()
    queue.draw(4), queue.draw(4)
    loaded.load_state_dict(state)
    assert list(loaded) == [0, 1, 2, 3]


def test_a_smaller_capacity_keeps_the_newest_entries_of_a_state():
    smaller = RareQueue(2)
    smaller.load_state_dict(saved_and_loaded(filled(5)))
    assert list(smaller) == [3, 4]
