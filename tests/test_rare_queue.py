"""The FIFO against a ``deque(maxlen)`` model, and its draws, ages and state."""

from __future__ import annotations

import io
import random
from collections import Counter, deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solo_ood.rare_queue import RareQueue

indexes = st.lists(st.integers(0, 12), max_size=9)
operation = st.one_of(
    st.tuples(st.just("push"), indexes),
    st.tuples(st.just("discard"), indexes),
    st.tuples(st.just("draw"), st.integers(0, 5)),
)


@settings(max_examples=50, deadline=None)
@given(
    capacity=st.integers(1, 8),
    max_replays=st.one_of(st.none(), st.integers(1, 3)),
    operations=st.lists(operation, max_size=40),
)
def test_it_equals_a_bounded_deque_under_any_operations(capacity, max_replays, operations):
    queue = RareQueue(capacity, max_replays)
    model: deque[int] = deque(maxlen=capacity)
    replays: Counter[int] = Counter()
    for name, argument in operations:
        if name == "push":
            queue.push(argument)
            for index in argument:
                if index not in model:
                    model.append(index)
                    replays[index] = 0
        elif name == "discard":
            queue.discard(argument)
            for index in set(argument) & set(model):
                model.remove(index)
        else:
            drawn = queue.draw(argument)
            assert len(drawn) == (argument if len(model) >= argument else 0)
            assert len(set(drawn)) == len(drawn) and set(drawn) <= set(model)
            replays.update(drawn)
            for index in drawn:
                if replays[index] == max_replays:
                    model.remove(index)
        assert list(queue) == list(model) and len(queue) == len(model)


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
