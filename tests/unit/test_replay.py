"""Replay through the training dataset: fresh augmentations, shared between processes."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from solo_ood.replay.rare_loader import RareLoader
from solo_ood.selection.rare_queue import RareQueue


class Augmented(Dataset):
    """Two noisy crops of sample i with values in [i, i + 1); target 10 i; 30 samples."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index):
        gain = (1 + random.random() + np.random.rand()) / 4
        return index, [index + gain * torch.rand(3, s, s) for s in (4, 2)], 10 * index


class WorkerIds(Augmented):
    def __getitem__(self, index):
        worker = get_worker_info()
        return index, [torch.zeros(1)], -1 if worker is None else worker.num_workers


class WithoutIndexes(Augmented):
    def __getitem__(self, index):
        return super().__getitem__(index)[1:]


class WrongIndexes(Augmented):
    def __getitem__(self, index):
        return (index + 1, *super().__getitem__(index)[1:])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


def queue_of(indexes, **kwargs) -> RareQueue:
    queue = RareQueue(capacity=30, **kwargs)
    queue.push(indexes)
    return queue


def loader(queue: RareQueue, rows: int, workers: int | None = 0, **kwargs) -> RareLoader:
    return RareLoader(DataLoader(Augmented(), batch_size=8), queue, rows, workers, **kwargs)


@pytest.mark.parametrize("workers", [0, 2])
def test_queued_samples_are_read_with_their_own_crops_and_targets(workers):
    replay = loader(queue_of([3, 7, 11, 20]), 3, workers)
    for _ in range(4):
        indexes, crops, targets = replay.next()
        assert len(set(indexes.tolist()) & {3, 7, 11, 20}) == 3
        assert targets.tolist() == [10 * i for i in indexes.tolist()]
        assert [crop.shape[1:] for crop in crops] == [(3, 4, 4), (3, 2, 2)]
        for crop in crops:
            assert (crop.floor() == indexes.reshape(-1, 1, 1, 1)).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_every_replay_of_a_sample_has_fresh_augmentations(workers):
    replay = loader(queue_of([5]), 1, workers)
    seen = torch.stack([replay.next()[1][0] for _ in range(6)]).flatten(1)
    assert len(seen.unique(dim=0)) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_a_queue_that_is_too_short_gives_none_until_it_has_grown(workers):
    queue = queue_of([1])
    replay = loader(queue, 2, workers)
    assert replay.next() is None and replay.next() is None
    queue.push([2])
    assert sorted(replay.next()[0].tolist()) == [1, 2]
    queue.discard([1, 2])
    while replay.next() is not None:
        pass  # what the workers had read ahead
    queue.push([8, 9])
    assert sorted(replay.next()[0].tolist()) == [8, 9]


def test_ranks_read_disjoint_shares_of_one_common_draw():
    shares = []
    for rank in (0, 1):
        replay = loader(queue_of(range(30), seed=4), 5, rank=rank, world_size=2)
        shares.append([replay.next()[0].tolist() for _ in range(3)])
    common = queue_of(range(30), seed=4)
    for first, second in zip(*shares):
        assert first + second == common.draw(10)


@pytest.mark.parametrize("other", [{"seed": 1}, {"rank": 1, "world_size": 2}])
def test_augmentations_follow_the_seed_and_differ_between_processes(other):
    """Of the one sample that all of them read: 5, or 5 and 6 shared by two processes."""
    same = {key: value for key, value in other.items() if key == "world_size"}

    def gains(**kwargs) -> torch.Tensor:
        queue = queue_of([5, 6][: kwargs.get("world_size", 1)])
        return loader(queue, 1, workers=1, **kwargs).next()[1][0].frac()

    first = gains(**same)
    assert torch.equal(first, gains(**same)) and not torch.equal(first, gains(**other))


def test_the_global_rngs_are_not_used_with_workers():
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    replay = loader(queue_of(range(10)), 4, workers=2)
    replay.next(), replay.next()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), str(np.random.get_state())) == before[1:]


@pytest.mark.parametrize(("workers", "expected"), [(None, 1), (0, -1), (2, 2)])
def test_workers_are_those_asked_for_or_in_proportion_to_the_rows(workers, expected):
    train = DataLoader(WorkerIds(), batch_size=8, num_workers=2, multiprocessing_context="fork")
    replay = RareLoader(train, queue_of(range(10)), 2, workers)  # 2 of 8 rows, 2 workers
    assert replay.next()[2].tolist() == [expected, expected]


@pytest.mark.parametrize(
    ("dataset", "got"),
    [
        (WithoutIndexes(), "a sample of 2 parts"),
        (WrongIndexes(), "1"),
        (Stream(), "Stream"),
    ],
)
def test_a_dataset_that_cannot_be_read_by_index_is_an_error_with_a_remedy(dataset, got):
    with pytest.raises(ValueError, match=rf"got {got}\. Wrap .*ood\.queue\.store=crops"):
        RareLoader(DataLoader(dataset, batch_size=2), queue_of([0]), 1)
