"""Replay of the very crops that were kept, for data that cannot be read by index."""

from __future__ import annotations

import torch
from torch import Tensor

from solo_ood.replay.crop_store import CropStore
from solo_ood.selection.rare_queue import RareQueue


def queue_of(indexes: list[int], **kwargs: int) -> RareQueue:
    queue = RareQueue(capacity=8, **kwargs)
    queue.push(indexes)
    return queue


def batch_of(indexes: list[int]) -> list[Tensor | list[Tensor]]:
    """[indexes, two noisy crops, targets 10 i]."""
    crops = [torch.rand(len(indexes), 3, side, side) for side in (4, 2)]
    return [torch.tensor(indexes), crops, 10 * torch.tensor(indexes)]


def test_the_crop_store_returns_the_very_crops_and_targets_it_was_given():
    queue, batch = queue_of([4, 6]), batch_of([4, 5, 6])
    store = CropStore(queue, rows=2)
    store.store(batch)
    for _ in range(3):
        indexes, crops, targets = store.next()
        rows = [batch[0].tolist().index(i) for i in indexes.tolist()]
        assert sorted(rows) == [0, 2] and torch.equal(targets, batch[2][rows])
        assert all(torch.equal(crop, kept[rows]) for crop, kept in zip(crops, batch[1]))


def test_the_crop_store_keeps_copies_and_the_first_crops_of_a_sample():
    store, batch = CropStore(queue_of([4]), rows=1), batch_of([4])
    first = batch[1][0].clone()
    store.store(batch)
    batch[1][0].zero_()
    store.store(batch_of([4]))
    assert torch.equal(store.next()[1][0], first)


def test_the_crop_store_forgets_samples_that_left_the_queue():
    queue, batch = queue_of([4]), batch_of([4])
    store = CropStore(queue, rows=1)
    store.store(batch)
    queue.discard([4])
    store.store(batch_of([9]))
    queue.push([4])
    store.store(newer := batch_of([4]))
    assert torch.equal(store.next()[1][0], newer[1][0])


def test_queued_samples_without_crops_as_after_a_resume_leave_instead_of_blocking_the_replay():
    queue = queue_of([1, 2, 3, 4])
    store = CropStore(queue, rows=2)
    store.store(batch_of([1, 2]))
    assert sorted(store.next()[0].tolist()) == [1, 2]
    assert sorted(queue) == [1, 2]
    assert queue.n_drawn == 2  # none was drawn in vain, which would wear it out


def test_the_crop_store_returns_a_sample_on_its_last_replay():
    store = CropStore(queue_of([4], max_replays=1), rows=1)
    store.store(batch_of([4]))
    assert store.next()[0].tolist() == [4]
    assert store.next() is None


def test_the_crop_store_holds_what_waits_for_its_verdict():
    queue, batch = queue_of([]), batch_of([4, 5])
    store = CropStore(queue, rows=1)
    store.store(batch, undecided=[4])
    queue.push([4])  # its block is full now
    store.store(batch_of([9]))
    assert torch.equal(store.next()[1][0], batch[1][0][:1])
