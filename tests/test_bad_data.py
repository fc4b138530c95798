"""Damaged files, impossible features, dying workers: what a run survives, and what it says."""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from short_runs import SaveAfterFirstEpoch
from torch.utils.data import DataLoader, get_worker_info
from torchvision.datasets.folder import default_loader

from solo_ood.errors import UserError
from solo_ood.replay.mixing import drawn_order
from solo_ood.replay.rare_loader import RareLoader
from solo_ood.selection.rare_queue import RareQueue
from solo_ood.selection.selector import RareSelector
from solo_ood.settings.schema import parse

HERE = Path(__file__).resolve().parent
OOD = "++method_kwargs.ood."
FAST = [  # transformers have no BatchNorm: a bad row stays one row
    "backbone.name=vit_tiny",
    "+backbone.kwargs.patch_size=16",
    "+backbone.kwargs.img_size=32",
    "augmentations.1.num_crops=0",
    "augmentations.1.crop_size=32",
    "max_epochs=9",  # as many as any test trains
    "method_kwargs.ood.scorer.min_samples=8",
    "method_kwargs.ood.threshold.n=8",
]
STREAM = range(40)  # rows of the 48 that the train loader reads; only replays read the others
DAMAGE = ("missing", "truncated", "empty", "text")


def damage(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"x"}[how])


def write_images(folder: Path) -> list[Path]:
    """Write 48 digits of two classes as JPEGs; return their paths, ordered as in an ImageFolder."""
    from PIL import Image
    from sklearn.datasets import load_digits

    paths = []
    for number, image in enumerate(load_digits().images[:48]):
        path = folder / "train" / f"{number // 24}" / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9).astype("uint8")).resize((32, 32)).save(path, quality=95)
        paths.append(path)
    return paths


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path)


@pytest.fixture
def prepared(images, compose, build, loader):
    """Return a model and the train loader over the rows ``STREAM`` of ``images``."""

    def made(*overrides, rows=STREAM):
        train = images[0].parents[1]
        cfg = compose(*FAST, f"data.train_path={train}", f"data.val_path={train}", *overrides)
        seed_everything(1)
        return build(cfg), stream(loader(cfg), rows)

    return made


def stream(whole: DataLoader, rows=STREAM) -> DataLoader:
    """Return the host's loader with some rows only, in their order."""
    return DataLoader(
        whole.dataset, batch_size=8, sampler=list(rows), num_workers=whole.num_workers,
        collate_fn=whole.collate_fn, drop_last=True,
    )  # fmt: skip


class At(Callback):
    """Do something with the module and the batch before the steps that are keys."""

    def __init__(self, actions):
        self.actions = actions

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step in self.actions:
            self.actions[trainer.global_step](module, batch)


class Steps(Callback):
    """Record the losses, and the crops that reach the student: their number, finite or not."""

    def on_train_start(self, trainer, module):
        from solo_ood.host import networks

        self.losses, self.rows, self.finite = [], set(), True
        networks.student(module).register_forward_pre_hook(self.record)

    def record(self, student, crops):
        self.rows.add(len(crops[0]))
        self.finite &= bool(crops[0].isfinite().all())

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))


class Said:
    """Collect the warnings of this package, of the kind that no filter of ours makes an error."""

    def __enter__(self):
        self.catcher = warnings.catch_warnings(record=True)
        self.caught = self.catcher.__enter__()
        warnings.simplefilter("always")
        return self

    def __exit__(self, *error):
        self.catcher.__exit__(*error)

    @property
    def texts(self):
        ours = [w for w in self.caught if "solo_ood" in w.filename or w.filename == __file__]
        assert all(w.category is RuntimeWarning for w in ours)
        return [str(w.message) for w in ours]


@pytest.fixture
def kill_workers():
    """Kill the worker processes that were started since the test began."""
    before = set(multiprocessing.active_children())

    def kill(*_):
        workers = set(multiprocessing.active_children()) - before
        assert workers
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
        time.sleep(0.5)  # torch's handler of SIGCHLD must not end the run here

    return kill


def queue_of(indexes, **kwargs) -> RareQueue:
    queue = RareQueue(capacity=48, **kwargs)
    queue.push(indexes)
    return queue


# -- files that cannot be read -----------------------------------------------------------------

NEVER_LEAVE = (f"{OOD}queue.release=0", f"{OOD}queue.max_replays=null")


@pytest.mark.parametrize("workers", [0, 1])
def test_replay_goes_on_without_the_files_it_cannot_read(workers, prepared, images, trainer):
    few = (f"{OOD}threshold.percentile=0.99", f"{OOD}threshold.n=100")  # flags: what is queued here
    model, train = prepared(f"{OOD}mix.num_workers={workers}", *few, *NEVER_LEAVE)
    bad, good = [40, 41, 42, 43], [44, 45]

    def begin(module, batch):
        module.selector.queue.discard(list(module.selector.queue))
        module.selector.queue.push([*bad, *good])
        for index, how in zip(bad, DAMAGE):
            damage(images[index], how)

    steps = Steps()
    with Said() as said:
        trainer(max_epochs=4, callbacks=[steps, At({3: begin})]).fit(model, train)
    queue = model.selector.queue
    assert len(steps.losses) == 20 and torch.tensor(steps.losses).isfinite().all()
    assert steps.rows == {8} and steps.finite
    assert len(said.texts) == 4
    for index, reason in zip(bad, ("FileNotFound", "OSError: image file is trunc", "Unid", "Unid")):
        (text,) = [text for text in said.texts if f"sample {index}, {images[index]}:" in text]
        assert f"expected to read it again, got {reason}" in text
    assert not set(bad) & set(queue) and set(good) <= set(queue)
    # Rows that could not be read are no replays; of the others, 2 a step once the queue is used.
    assert 2 * 14 - 2 * len(bad) <= model.selector.counts["replayed"] <= 2 * 17 - len(bad)


@pytest.mark.parametrize(("mode", "rows"), [("replace", 8), ("append", 10)])
def test_a_fresh_row_takes_the_place_of_a_replay_that_cannot_be_read(
    mode, rows, prepared, images, trainer
):
    from solo_ood.host import networks

    model, train = prepared(f"{OOD}mix.mode={mode}", *NEVER_LEAVE)
    seen, fresh, orders = [], [], []

    def begin(module, batch):
        module.selector.queue.discard(list(module.selector.queue))
        module.selector.queue.push([40, 41])
        fresh.append(batch[1][0])
        orders.append(drawn_order(8, 2, module.selector.seed, module.selector.queue.step))
        networks.student(module).register_forward_pre_hook(lambda _, crops: seen.append(crops[0]))

    for index in (40, 41):
        images[index].unlink()
    with Said() as said:
        trainer(max_steps=4, callbacks=[At({3: begin})]).fit(model, train)
    assert len(said.texts) == 2
    # The very rows that the replays would have replaced; with append, the last ones twice.
    order = orders[0] if mode == "replace" else torch.tensor([*range(8), 6, 7])
    assert len(order) == rows and torch.equal(seen[0], fresh[0][order])


@pytest.mark.parametrize(("how", "workers"), list(zip(DAMAGE, (0, 1, 0, 1))))
def test_the_stream_names_the_file_it_cannot_read(how, workers, prepared, images, trainer):
    model, train = prepared(f"data.num_workers={workers}")
    damage(images[3], how)
    named = f"{re.escape(str(images[3]))}: expected a readable image, got .*Repair or replace"
    with pytest.raises((UserError, RuntimeError), match=named):
        trainer().fit(model, train)


def test_the_first_samples_may_be_unreadable(images, compose, loader):
    train = images[0].parents[1]
    whole = loader(compose(f"data.train_path={train}", f"data.val_path={train}"))
    for path in images[:7]:
        damage(path, "empty")
    assert RareLoader(whole, queue_of([9, 12]), 2).next() is not None
    damage(images[7], "empty")
    with pytest.raises(ValueError, match="a readable sample among the first 8, got Unidentified"):
        RareLoader(whole, queue_of([9, 12]), 2)


@pytest.mark.parametrize("fault", ["file", "worker"])
def test_what_the_train_loader_ended_resumes_from_its_last_checkpoint(
    fault, prepared, images, trainer, tmp_path, kill_workers
):
    model, train = prepared("data.num_workers=1", f"{OOD}mix.num_workers=0")
    path, whole = tmp_path / "last.ckpt", images[39].read_bytes()
    # Step 5 begins the second epoch; the row 39 is in its last batch.
    actions = {"file": lambda *_: damage(images[39], "truncated"), "worker": kill_workers}
    said = {"file": re.escape(str(images[39])), "worker": r"DataLoader worker \(pid"}
    callbacks = [At({5: actions[fault]}), SaveAfterFirstEpoch(path)]
    with pytest.raises((UserError, RuntimeError), match=said[fault]):
        trainer(max_epochs=3, callbacks=callbacks).fit(model, train)
    saved = torch.load(path, weights_only=True)["dino_ood"]["selector"]["counts"]["judged"]
    images[39].write_bytes(whole)

    model, train = prepared("data.num_workers=1", f"{OOD}mix.num_workers=0")
    again = trainer(max_epochs=3)
    again.fit(model, train, ckpt_path=path)
    assert again.global_step == 15
    assert model.selector.counts["judged"] >= saved + 10 * 6


def test_queued_indexes_beyond_a_data_set_that_shrank_are_dropped(
    prepared, images, trainer, tmp_path
):
    model, train = prepared(*NEVER_LEAVE)
    first = trainer(
        max_epochs=1, callbacks=[At({3: lambda m, _: m.selector.queue.push([40, 47, 3, 4])})]
    )
    first.fit(model, train)
    first.save_checkpoint(tmp_path / "last.ckpt")
    for path in images[40:]:
        path.unlink()

    def late(module, batch):  # as a sample that was flagged in the very last step
        module.selector.queue.discard(list(module.selector.queue))
        module.selector.queue.push([46, 1])

    model, train = prepared(*NEVER_LEAVE)
    again = trainer(max_epochs=3, callbacks=[At({7: late})])
    with Said() as said:
        again.fit(model, train, ckpt_path=tmp_path / "last.ckpt")
    at_start, in_step = said.texts
    assert "the 40 training samples, got 2 beyond them, the largest 47. They are drop" in at_start
    assert "training sample 46, of no known file: expected to read it again, got Index" in in_step
    assert again.global_step == 15
    assert len(model.selector.queue) and max(model.selector.queue) < 40


@pytest.mark.parametrize("workers", [0, 1])
def test_exemplars_that_vanish_are_left_out_and_the_last_ones_stay(
    workers, prepared, images, trainer
):
    model, train = prepared(
        "ood=exemplar", "method_kwargs.ood.scorer.exemplars=[41,43,45]",
        f"{OOD}scorer.exemplar_every=2", f"{OOD}mix.num_workers={workers}",
    )  # fmt: skip
    seen = {}

    def look(module, batch):
        scorer = module.selector.scorer
        seen[module.global_step] = scorer.n_exemplars, scorer.mean_exemplar.clone()

    def lose(*indexes):
        return lambda *_: [damage(images[index], "missing") for index in indexes]

    # A worker reads two looks, 4 steps, ahead.
    actions = {3: lose(43), 12: look, 13: lose(41, 45), 20: look}
    with Said() as said:
        trainer(max_epochs=5, callbacks=[At(actions)]).fit(model, train)
    assert [number for number, _ in seen.values()] == [2, 2]
    scorer = model.selector.scorer
    assert scorer.n_exemplars == 2
    assert not torch.equal(seen[12][1], seen[20][1])  # the teacher went on
    assert torch.equal(seen[20][1], scorer.mean_exemplar) and scorer.direction.isfinite().all()
    lost = [re.findall(r"^training sample (\d+), .*FileNotFound", text) for text in said.texts]
    assert sorted(lost) == [["41"], ["43"], ["45"]]
    assert model.selector.counts["judged"] > 100 and model.selector.counts["not_finite"] == 0


# -- features that are no numbers, or all the same ---------------------------------------------


def scored(selector: RareSelector) -> int:
    """The finite scores so far, judged or waiting for the end of their block."""
    return selector.counts["judged"] + len(selector.threshold.waiting)


def test_nan_pixels_are_counted_and_neither_learnt_nor_queued(prepared, trainer):
    model, train = prepared(*NEVER_LEAVE)
    snapshots = {}

    def spoil(module, batch):
        for crop in batch[1]:
            crop[3] = float("nan")

    def look(module, batch):
        snapshots[module.global_step] = dict(module.selector.counts)

    steps = Steps()
    actions = {6: spoil, 8: look}
    trainer(max_epochs=3, callbacks=[steps, At(actions)]).fit(model, train)
    selector = model.selector
    # One row at first; DINO's loss and from it the weights are lost, as in stock DINO.
    assert snapshots[8]["not_finite"] == 1
    assert torch.tensor(steps.losses).isfinite().tolist() == [True] * 6 + [False] * 9
    assert selector.counts["not_finite"] == 1 + 8 * 6
    assert selector.counts["flagged"] == snapshots[8]["flagged"]
    scorer, threshold = selector.scorer, selector.threshold
    assert scorer.reference.rows[scorer.reference.filled].isfinite().all()
    assert threshold.block.isfinite().all() and math.isfinite(threshold.threshold)

    # With the weights of before, as from a checkpoint, the detector goes on where it was.
    fresh, train = prepared(*NEVER_LEAVE)
    fresh.selector.load_state_dict(selector.state_dict())
    before = scored(selector)
    trainer(max_epochs=2).fit(fresh, train)
    assert scored(fresh.selector) == before + 10 * 6
    assert fresh.selector.counts["not_finite"] == selector.counts["not_finite"]


def selector_of(scorer: str) -> RareSelector:
    block = {
        "scorer": {"name": scorer, "n_reference": 64, "min_samples": 8},
        "threshold": {"percentile": 0.8, "n": 8},
    }
    return RareSelector(parse(block), 16)


def rows_of(number, seed):
    return torch.randn(number, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scorer", ["knn", "mahalanobis"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_rows_that_are_not_finite_change_nothing_for_the_others(scorer, value):
    """Two detectors see the same rows; one of them, once ready, with spoilt rows in between."""
    clean, spoilt = selector_of(scorer), selector_of(scorer)
    bad = torch.tensor([0, 3, 9])
    good = torch.tensor([i for i in range(10) if i not in bad])
    for step in range(20):
        feats, indexes = rows_of(7, step), torch.arange(7) + 100 * step
        clean.step(indexes, clean.embed([feats]), torch.zeros(7).long())
        if step >= 4:
            more, numbers = torch.zeros(10, 16), torch.full((10,), 999)
            more[good], numbers[good] = feats, indexes
            more[bad, step % 16] = value
            feats, indexes = more, numbers
        spoilt.step(indexes, spoilt.embed([feats]), torch.zeros(len(feats)).long())
    clean.judge_pending(), spoilt.judge_pending()
    assert list(clean.queue) == list(spoilt.queue) and len(clean.queue) > 5
    assert spoilt.counts == {**clean.counts, "not_finite": 3 * 16}
    for key, learnt in clean.scorer.state_dict().items():
        if isinstance(learnt, torch.Tensor):
            torch.testing.assert_close(spoilt.scorer.state_dict()[key], learnt, equal_nan=True)
    # In batches of other sizes sums end in other last bits.
    assert spoilt.threshold.threshold == pytest.approx(clean.threshold.threshold, rel=1e-6)


@pytest.mark.parametrize("scorer", ["knn", "mahalanobis"])
def test_black_images_keep_the_flag_rate(scorer, images, prepared, trainer):
    from PIL import Image

    for path in images:
        Image.new("RGB", (32, 32)).save(path)
    model, train = prepared(f"{OOD}scorer.name={scorer}")
    steps = Steps()
    trainer(max_epochs=4, callbacks=[steps]).fit(model, train)
    counts = model.selector.counts
    assert len(steps.losses) == 20 and torch.tensor(steps.losses).isfinite().all()
    assert counts["judged"] > 80
    assert counts["not_finite"] == 0
    assert counts["flagged"] == round(0.2 * counts["judged"])


def test_equal_embeddings_tie_and_their_flag_rate_is_exact():
    selector, row = selector_of("knn"), rows_of(1, 0)
    for step in range(100):
        selector.step(torch.arange(8) + 8 * step, row.expand(8, -1), torch.zeros(8).long())
    selector.judge_pending()
    assert selector.counts["judged"] == 8 * 99
    assert selector.counts["flagged"] == round(0.2 * 8 * 99)


# -- workers that die --------------------------------------------------------------------------


@pytest.fixture
def whole(images, compose, loader):
    """The host's loader over all images."""
    train = images[0].parents[1]
    return loader(compose(f"data.train_path={train}", f"data.val_path={train}"))


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


def fill_queue(module, batch):
    module.selector.queue.push(range(40, 48))


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
    assert "sample 5" in said.texts[-1] and "got two workers that ended while" in said.texts[-1]


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


# -- several processes -------------------------------------------------------------------------


class Faults(Callback):
    """The same queue on both processes; the files of 1 are damaged, a worker of 0 dies."""

    def on_train_start(self, trainer, module):
        self.said = Said()
        self.said.__enter__()
        self.draws = []

    def watch(self, replay):
        next_batch = replay.next

        def recorded():
            batch = next_batch()
            self.draws.append(None if batch is None else batch[0].tolist())
            return batch

        replay.next = recorded

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 0:
            self.watch(module.replay)
        if trainer.global_step == 2:
            module.selector.queue.push(range(40, 48))
        if trainer.global_step == 8 and trainer.global_rank == 0:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)

    def on_train_end(self, trainer, module):
        self.said.__exit__(None, None, None)


def main(folder: str, overrides: list[str]) -> None:
    """Train on two gloo processes, each with its own copy of the images."""
    from ddp_run import model_and_loader
    from lightning.pytorch import Trainer

    train = f"{folder}/{os.environ.get('LOCAL_RANK', 0)}/train"
    paths = [f"data.train_path={train}", f"data.val_path={train}"]
    model, whole = model_and_loader(HERE.parent / "configs", [*overrides, *paths])
    faults = Faults()
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=8, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[faults],
    )  # fmt: skip
    trainer.fit(model, stream(whole))
    state = {
        "selector": model.selector.state_dict(),
        "draws": faults.draws,
        "said": faults.said.texts,
    }
    torch.save(state, Path(folder) / f"{trainer.global_rank}.pt")


def test_processes_stay_in_step_when_one_cannot_read_or_loses_a_worker(tmp_path, registered, tiny):
    for rank in (0, 1):
        paths = write_images(tmp_path / str(rank))
    for index in (40, 41, 42, 43):
        damage(paths[index], "truncated")
    overrides = [*tiny, *FAST, *NEVER_LEAVE, f"{OOD}mix.num_workers=1"]
    done = subprocess.run(
        [sys.executable, __file__, tmp_path, *overrides],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    mine, theirs = first["selector"], second["selector"]
    assert mine["queue"]["rng"] == theirs["queue"]["rng"] and mine["counts"] == theirs["counts"]
    for part in ("queue", "scorer", "threshold"):
        for key, value in mine[part].items():
            torch.testing.assert_close(value, theirs[part][key], rtol=0, atol=0, equal_nan=True)
    # Only the process that failed says so; both drop the index.
    lost = {int(re.findall(r"training sample (\d+)", text)[0]) for text in second["said"]}
    assert lost and lost <= {40, 41, 42, 43} and len(second["said"]) == len(lost)
    assert not lost & set(mine["queue"]["indexes"].tolist())
    assert len(first["said"]) == 1 and "a replay worker that died" in first["said"][0]
    # The same number of rows at the same steps, and never the same sample twice.
    assert len(first["draws"]) == len(second["draws"]) > 12
    pairs = list(zip(first["draws"], second["draws"]))
    assert sum(a is not None for a, _ in pairs) > 8
    for a, b in pairs:
        assert (a is None) == (b is None)
        if a is not None:
            assert len(a) == len(b) == 2 and len({max(i, -1 - i) for i in a + b}) == 4


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
