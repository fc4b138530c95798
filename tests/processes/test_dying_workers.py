"""Replay workers that die: what a run survives, and what it says."""

from __future__ import annotations

import copy
import os
import signal
import time

import pytest
from damaged import NEVER_LEAVE, OOD, At, Said, fill_queue, queue_of
from torch.utils.data import DataLoader, get_worker_info
from torchvision.datasets.folder import default_loader

from solo_ood.replay.rare_loader import RareLoader


def test_new_replay_workers_go_on_with_the_common_draws(whole, kill_workers):
    replay = RareLoader(whole, queue_of(range(30), seed=4), 2, 2, rank=1, world_size=2)
    common = queue_of(range(30), seed=4)
    with Said() as said:
        for step in range(10):
            if step == 4:
                kill_workers()
            assert replay.next()[0].tolist() == common.draw(4)[2:]
    (text,) = said.texts
    assert text.startswith(
        "replay: expected its worker processes to run, got a replay worker that died ("
    )


def test_replay_workers_that_die_while_the_queue_is_empty_are_replaced(whole, kill_workers):
    queue = queue_of([1, 2], max_replays=1)
    replay = RareLoader(whole, queue, 2, 1)
    assert sorted(replay.next()[0].tolist()) == [1, 2]
    assert replay.next() is None
    kill_workers()
    queue.push([3, 4])
    with Said() as said:
        assert sorted(replay.next()[0].tolist()) == [3, 4]
    assert len(said.texts) == 1


def test_a_run_survives_the_death_of_its_replay_workers(prepared, trainer, kill_workers):
    model, train = prepared(f"{OOD}mix.num_workers=1", *NEVER_LEAVE)
    replayed = {}

    def look(module, batch):
        replayed[module.global_step] = module.selector.counts["replayed"]

    fitter = trainer(
        max_epochs=3,
        callbacks=[At({3: fill_queue, 6: kill_workers, 9: look, 14: look})],
    )
    with Said() as said:
        fitter.fit(model, train)
    assert fitter.global_step == 15
    assert replayed[14] - replayed[9] == 5 * 2
    assert len(said.texts) == 1 and "a replay worker that died" in said.texts[0]


class Crashing:
    """The image loader of a folder, but for one file it ends its process, as a decoder may."""

    def __init__(self, loader, path):
        self.loader, self.path = loader, str(path)

    def __call__(self, path):
        if path == self.path and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.loader(path)


def test_rows_that_kill_their_reader_twice_are_left_out(whole, images):
    whole.dataset.loader = Crashing(whole.dataset.loader, images[5])
    queue = queue_of([5, 6], max_replays=1, seed=1)  # both are read ahead
    replay = RareLoader(whole, queue, 1, 1)
    with Said() as said:
        lost, other = replay.next(), replay.next()
    assert replay.next() is None
    assert int(lost[0]) == -1 - 5 and lost[1][0].isnan().all()
    assert int(other[0]) == 6 and other[1][0].isfinite().all()
    assert len(said.texts) == 3
    assert "sample 5" in said.texts[-1] and "got two workers that died while" in said.texts[-1]


def two_ranks(whole, loaders, **kwargs):
    """The replay of two processes, each with its dataset and its copy of one queue."""
    queues = [queue_of(range(16), seed=1, **kwargs) for _ in range(2)]
    replays = []
    for rank, queue in enumerate(queues):
        dataset = copy.copy(whole.dataset)
        dataset.loader = loaders[rank]
        train = DataLoader(dataset, batch_size=8, collate_fn=whole.collate_fn)
        replays.append(RareLoader(train, queue, 2, 1, rank, world_size=2))
    return queues, replays


def assert_in_step(queues, batches):
    """Both replay or none does, and then different rows; their queues are the same."""
    first, second = ([] if batch is None else batch[0].tolist() for batch in batches)
    assert len(first) == len(second) and not set(first) & set(second)
    one, other = (queue.state_dict() for queue in queues)
    assert one["rng"] == other["rng"] and one["indexes"].tolist() == other["indexes"].tolist()
    assert one["entries"].tolist() == other["entries"].tolist()


def test_processes_draw_alike_when_a_worker_of_one_dies_as_the_queue_runs_dry(whole):
    queues, replays = two_ranks(whole, [whole.dataset.loader] * 2, max_replays=1)
    for queue in queues:
        queue.discard(range(8, 16))
    drawn = 0
    for step in range(8):
        if step == 1:  # all is drawn, one batch is still on its way
            for worker in replays[0]._workers:
                os.kill(worker.pid, signal.SIGKILL)
            time.sleep(0.5)
        batches = [replay.next() for replay in replays]
        assert_in_step(queues, batches)
        drawn += batches[0] is not None
        for queue in queues:
            queue.push(range(20, 32) if step == 0 else [])  # full again before that one is there
    assert drawn == 2 + 3


def test_processes_draw_alike_when_a_row_kills_its_reader_twice(whole, images):
    bad = queue_of(range(16), seed=1).draw(4)[0]
    loader = whole.dataset.loader
    queues, replays = two_ranks(whole, [Crashing(loader, images[bad]), loader])
    blank = 0
    for step in range(12):
        batches = [replay.next() for replay in replays]
        marks = [-1 - index for index in batches[0][0].tolist() if index < 0]
        blank += bool(marks)
        assert_in_step(queues, batches)
        for queue in queues:  # as the selectors of both do
            queue.discard(marks)
            queue.push([16 + 2 * step, 17 + 2 * step])
    assert blank >= 1 and bad not in queues[0]


def test_no_more_workers_is_an_error_of_the_system(whole, kill_workers, monkeypatch):
    queue = queue_of([1, 2], max_replays=1)
    replay = RareLoader(whole, queue, 2, 1)
    assert replay.next() is not None and replay.next() is None
    kill_workers()
    queue.push([3, 4])

    def refuse():
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        replay.next()


def test_worker_init_functions_find_the_dataset(whole):
    whole.worker_init_fn = open_images
    whole.dataset.loader = only_here  # workers open what they read themselves, as h5 files
    assert min(RareLoader(whole, queue_of([1, 2]), 2, 1).next()[0].tolist()) == 1


def open_images(worker):
    dataset = get_worker_info().dataset
    assert len(dataset.samples) == 48
    dataset.loader = default_loader


def only_here(path):
    """Read an image in the main process, but not in a worker."""
    assert get_worker_info() is None
    return default_loader(path)


@pytest.mark.parametrize("kind", ["keyword", "property"])
def test_datasets_with_another_kind_of_loader_train_as_before(kind, whole, prepared, trainer):
    class Grey(type(whole.dataset)):
        def __getitem__(self, index):
            path, target = self.samples[index]
            crops = self.transform(self.loader(path, mode="L").convert("RGB"))
            return index, crops, target

    class Fixed(type(whole.dataset)):
        loader = property(lambda self: default_loader, lambda self, value: self.refuse(value))

        def refuse(self, value):
            if hasattr(self, "samples"):
                raise AttributeError("can't set attribute")

    model, train = prepared()
    train.dataset.__class__ = {"keyword": Grey, "property": Fixed}[kind]
    if kind == "keyword":
        train.dataset.loader = grey
    fitter = trainer(max_epochs=1)
    fitter.fit(model, train)
    assert fitter.global_step == 5


def grey(path, mode):
    return default_loader(path).convert(mode)
