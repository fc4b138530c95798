"""Replay from datasets that torch's wrappers made: the right samples, or an error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, random_split

from solo_ood.errors import UserError
from solo_ood.replay.exemplars import Exemplars
from solo_ood.replay.positions import path_of
from solo_ood.replay.rare_loader import RareLoader
from solo_ood.selection.classes import targets_of
from solo_ood.selection.rare_queue import RareQueue


class Indexed(Dataset):
    """400 samples whose crops hold their own number, the targets and paths, too."""

    samples = [(f"{i}.png", i) for i in range(400)]
    n_shifted = 0  # of the indexes in the middle that are wrong

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index):
        shifted = index + 1 if 190 <= index < 190 + self.n_shifted else index
        return shifted, [torch.full((3, 4, 4), float(index))] * 2, index


class Repeated(Indexed):
    """Each sample ten times, as small data sets are made longer."""

    def __getitem__(self, index):
        return super().__getitem__(index % 40)


class OfItsOwn(Subset):
    """Numbers its samples itself, as solo-learn's ``dataset_with_index`` does."""

    def __getitem__(self, index):
        return index, *super().__getitem__(index)[1:]

    def __getitems__(self, indexes):
        return [self[i] for i in indexes]


def every_third() -> Subset:
    return Subset(Indexed(), [0, *range(2, 400, 3)])


DATASETS = {
    "subset": every_third(),
    "split": random_split(Indexed(), [300, 100], torch.Generator().manual_seed(1))[0],
    "nested": Subset(every_third(), range(0, 134, 2)),
    "repeated indexes": Subset(Indexed(), [7, 7, 5, 3, 7, 5]),
    "joined": ConcatDataset([every := every_third(), Subset(every.dataset, [1, 4])]),
    "numbered anew": OfItsOwn(Indexed(), range(100, 200)),
    "whole": Indexed(),
}


def replay(dataset, indexes, workers=0):
    queue = RareQueue(64)
    queue.push(indexes)
    return RareLoader(DataLoader(dataset, batch_size=8), queue, len(indexes), workers)


@pytest.mark.parametrize("name", DATASETS)
def test_replay_reads_the_samples_that_the_stream_gave(name):
    dataset = DATASETS[name]
    stream = {dataset[i][0]: dataset[i][2] for i in range(len(dataset))}  # index: the content
    wanted = list(stream)[1:20:3] + list(stream)[-1:]
    indexes, crops, targets = replay(dataset, set(wanted)).next()
    assert sorted(indexes.tolist()) == sorted(set(wanted))
    assert targets.tolist() == [stream[i] for i in indexes.tolist()]
    assert torch.equal(crops[0][:, 0, 0, 0], targets.float())
    labels = targets_of(dataset)
    assert labels is not None and labels.tolist() == [dataset[i][2] for i in range(len(dataset))]


@pytest.mark.parametrize(
    "dataset",
    [
        ConcatDataset([Indexed(), Indexed()]),
        ConcatDataset([every_third(), Indexed()]),
        Repeated(),
        Subset(Indexed(), [5, -1, 3]),
    ],
)
def test_indexes_that_stand_for_several_samples_are_an_error_at_the_start(dataset):
    with pytest.raises(UserError, match=r"training dataset, .*(the index \d+, got|at least 0)"):
        replay(dataset, [3])


class Counted(Indexed):
    """Gives its indexes in a form of its own."""

    def __init__(self, form):
        self.form = form

    def __getitem__(self, index):
        return self.form(index), *super().__getitem__(index)[1:]


@pytest.mark.parametrize("form", [np.int64, np.uint16, torch.tensor])
def test_an_index_may_be_a_whole_number_of_any_kind(form):
    indexes, crops, targets = replay(Counted(form), [3, 8]).next()
    assert sorted(indexes.tolist()) == [3, 8] and indexes.ndim == 1
    assert targets.tolist() == indexes.tolist()


@pytest.mark.parametrize(
    "form", [float, str, lambda i: torch.tensor([i]), lambda i: torch.tensor(i + 0.0)]
)
def test_what_cannot_be_an_index_is_an_error_at_the_start(form):
    with pytest.raises(UserError, match="with the index 0, got"):
        replay(Counted(form), [3])


@pytest.mark.parametrize("workers", [0, 1])
def test_another_sample_than_was_asked_for_stops_the_run(workers):
    dataset = Indexed()
    dataset.n_shifted = 5  # where no probe looks
    loader = replay(dataset, [190, 191], workers)
    with pytest.raises(UserError, match=r"read again: .*with the index 19\d, got 19\d\. Wrap"):
        loader.next()
    loader.close()


def test_exemplars_and_paths_of_a_subset_are_those_of_what_it_wraps():
    subset = Subset(every_third(), range(100))
    assert path_of(subset, 8) == "8.png" and path_of(DATASETS["numbered anew"], 8) is None
    exemplars = Exemplars([5, "8.png"], DataLoader(subset, batch_size=8))
    assert [int(x) for x in exemplars.next()[0][:, 0, 0, 0]] == [5, 8]
    with pytest.raises(UserError, match="index 3, which the Subset leaves out"):
        Exemplars([3], DataLoader(subset, batch_size=8))
