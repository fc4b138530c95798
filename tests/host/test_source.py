"""The replay follows the trainer: its schedule, its last batch, its loaders, its end."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from short_runs import SMALL, SaveAfterFirstEpoch, loading, loading_of
from torch.utils.data import DataLoader, IterableDataset

from solo_ood.errors import UserError

CROPS = "++method_kwargs.ood.queue.store=crops"


@pytest.fixture
def prepared(compose, build, loader):
    """Return a model and the host's loader of the given rows of the digits, in this order."""

    def made(*overrides, rows=range(48), **kwargs):
        seed_everything(1)
        cfg = compose(*SMALL, *overrides)
        return build(cfg), loading(loader(cfg), rows, **kwargs)

    return made


class Batches(Callback):
    """Record what the student is given: rows, and how many of them are replays."""

    def __init__(self):
        self.rows, self.drawn = [], []

    def on_train_epoch_start(self, trainer, module):
        from solo_ood.host import networks

        if trainer.current_epoch > 0:
            return
        networks.student(module).register_forward_pre_hook(
            lambda student, crops: self.rows.append(len(crops[0]))
        )
        replay = module.replay
        draw = replay.next
        replay.next = lambda: self.drawn.append(draw()) or self.drawn[-1]


# -- the last batch --------------------------------------------------------------------------------


def test_a_last_batch_without_a_row_to_spare_is_trained_without_replay(prepared, trainer):
    model, train = prepared(rows=range(42), drop_last=False)  # 5 batches of 8, one of 2
    seen = Batches()
    fit = trainer(max_epochs=3, callbacks=[seen])
    fit.fit(model, train)
    assert fit.global_step == 18
    per_step = seen.rows[:: len(seen.rows) // 18]
    assert per_step == [8, 8, 8, 8, 8, 2] * 3
    # Nothing that was drawn is lost: all of it was trained and scored again.
    drawn = sum(len(batch[0]) for batch in seen.drawn if batch is not None)
    assert drawn == model.selector.counts["replayed"] > 0 and len(seen.drawn) == 15


# -- the share of the run --------------------------------------------------------------------------


class Stream(IterableDataset):
    """The samples of a map-style dataset as a stream without a length."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return (self.dataset[i] for i in range(len(self.dataset)))


@pytest.mark.parametrize("how", ["no length", "max_time"])
def test_a_share_of_an_unknown_number_of_steps_is_an_error(how, prepared, trainer):
    stream = how == "no length"
    store = [CROPS] if stream else []
    kwargs = {} if stream else {"max_epochs": -1, "max_time": "00:00:00:20"}

    def data(start):
        model, train = prepared(f"method_kwargs.ood.start={start}", "scheduler.name=none", *store)
        return model, DataLoader(Stream(train.dataset), batch_size=8) if stream else train

    with pytest.raises(UserError, match=r"ood\.start: expected 0 for .*start=0, or max_steps"):
        trainer(**kwargs).fit(*data(0.2))
    if not stream:  # the host itself asks for the length of the loader, after the first step
        model, train = data(0)
        trainer(**kwargs, max_steps=4).fit(model, train)
        assert model.selector.counts["judged"] > 0


def test_max_steps_makes_the_share_known(prepared, trainer):
    model, train = prepared("method_kwargs.ood.start=0.5", "scheduler.name=none")
    trainer(max_epochs=-1, max_steps=6).fit(model, train)
    assert model._first_step == 3 and model.selector.queue.step == 3


# -- other data ------------------------------------------------------------------------------------


def test_the_replay_reads_the_data_of_this_epoch(prepared, trainer, loader, compose):
    from lightning.pytorch import LightningDataModule

    model, train = prepared("++method_kwargs.ood.scorer.n_reference=64")
    whole = SimpleNamespace(dataset=train.dataset.dataset, collate_fn=train.collate_fn)
    parts = [range(0, 40), range(40, 80), range(80, 120)]  # indexes of the whole data

    class Data(LightningDataModule):
        def train_dataloader(self):
            return loading_of(whole, parts[self.trainer.current_epoch])

    class Read(Callback):
        def __init__(self):
            self.queued, self.read = [], []

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if batch_idx > 0:
                return
            self.queued.append(set(module.selector.queue))
            self.read.append(set())
            draw = module.replay.next

            def record():
                batch = draw()
                if batch is not None:
                    self.read[-1] |= set(batch[0].tolist())
                return batch

            module.replay.next = record

    seen = Read()
    fit = trainer(max_epochs=3, callbacks=[seen], reload_dataloaders_every_n_epochs=1)
    with pytest.warns(RuntimeWarning, match="queue: expected indexes of the"):
        fit.fit(model, datamodule=Data())
    for epoch in (1, 2):
        assert not any(seen.queued[epoch] & set(part) for part in parts[epoch + 1 :])
        assert seen.read[epoch] and seen.read[epoch] <= set(parts[epoch])


def test_exemplars_are_read_again_from_the_data_of_this_epoch(
    prepared, trainer, loader, compose, digits_cache
):
    from lightning.pytorch import LightningDataModule

    from solo_ood.data.digits import digits_lt

    exemplar = ("ood=exemplar", "method_kwargs.ood.scorer.exemplars=[3,200]")
    model, train = prepared(*exemplar, "++method_kwargs.ood.scorer.exemplar_every=1000")
    other = loader(compose(*SMALL, f"data.train_path={digits_lt('val')}")).dataset

    class Data(LightningDataModule):
        def train_dataloader(self):
            first = self.trainer.current_epoch == 0
            dataset = train.dataset.dataset if first else other
            whole = SimpleNamespace(dataset=dataset, collate_fn=train.collate_fn)
            return loading_of(whole, [3, 200, *range(10, 32)])

    class Looked(Callback):
        def __init__(self):
            self.at = []

        def on_train_start(self, trainer, module):
            look = module.selector.scorer.set_exemplars
            now = lambda: (trainer.current_epoch, trainer.global_step)  # noqa: E731
            module.selector.scorer.set_exemplars = lambda x: self.at.append((*now(), x)) or look(x)

    seen = Looked()
    fit = trainer(max_epochs=3, callbacks=[seen], reload_dataloaders_every_n_epochs=1)
    with pytest.warns(RuntimeWarning, match="queue: expected indexes of the"):
        fit.fit(model, datamodule=Data())
    (*first, before), (*second, after), *_ = seen.at
    assert (first, second) == ([0, 0], [1, 3])  # at the first step with other data, not in 1000
    assert not torch.allclose(before, after, atol=1e-2)


def test_other_exemplars_at_a_resume_count_from_the_first_step(prepared, trainer, tmp_path):
    rows = prepared()[1].dataset.indices
    exemplar = ("ood=exemplar", "++method_kwargs.ood.scorer.exemplar_every=1000")

    def of(number):
        return prepared(*exemplar, f"method_kwargs.ood.scorer.exemplars=[{rows[number]}]")

    model, train = of(0)
    fit = trainer(max_epochs=1)
    fit.fit(model, train)
    fit.save_checkpoint(tmp_path / "last.ckpt")
    before = model.selector.scorer.mean_exemplar
    for number in (0, 1):
        again, train = of(number)
        warned = pytest.warns(RuntimeWarning, match="scorer.exemplars") if number else nullcontext()
        with warned:
            trainer(max_steps=8).fit(again, train, ckpt_path=tmp_path / "last.ckpt")
        assert torch.equal(again.selector.scorer.mean_exemplar, before) == (number == 0)


def test_a_second_fit_forgets_the_first_data(prepared, trainer):
    model, train = prepared()
    labels = torch.tensor(train.dataset.dataset.targets)
    first, second = torch.where(labels < 4)[0], torch.where(labels > 5)[0]

    def fit(rows):
        own = SimpleNamespace(dataset=train.dataset.dataset, collate_fn=train.collate_fn)
        trainer(max_epochs=1).fit(model, loading_of(own, rows.tolist()[:: len(rows) // 40][:40]))
        return model.selector.rare_classes

    assert fit(first) and set(model.selector.rare_classes) <= {0, 1, 2, 3}
    assert fit(second) and set(model.selector.rare_classes) <= {6, 7, 8, 9}
    assert set(model.selector.queue) <= set(second.tolist())


def test_configured_rare_classes_win_over_those_of_a_checkpoint(prepared, trainer, tmp_path):
    model, train = prepared()
    fit = trainer(max_epochs=1)
    fit.fit(model, train)
    fit.save_checkpoint(tmp_path / "last.ckpt")
    assert model.selector.rare_classes not in ([], [3])
    again, train = prepared("++method_kwargs.ood.rare_classes=[3]")
    trainer(max_epochs=2).fit(again, train, ckpt_path=tmp_path / "last.ckpt")
    assert again.selector.rare_classes == [3]


# -- kept crops ------------------------------------------------------------------------------------


class Numbers(Callback):
    """Record the numbers under which the selector saw the fresh rows, and check the kept ones."""

    def __init__(self):
        self.seen = []

    def on_train_start(self, trainer, module):
        step = module.selector.step

        def record(indexes, feats, targets, n_replayed=0, **kwargs):
            self.seen += indexes[: len(indexes) - n_replayed].tolist()
            return step(indexes, feats, targets, n_replayed, **kwargs)

        module.selector.step = record

    def on_train_batch_end(self, trainer, module, *_):
        held = {*module.selector.queue, *module.selector.undecided}
        assert set(module.replay._samples) <= held


def test_rows_are_numbered_on_after_a_short_batch_and_after_a_resume(prepared, trainer, tmp_path):
    # Nothing is replayed, so that every row is fresh.
    kept = (CROPS, "++method_kwargs.ood.queue.min_age=1000")
    first, path = Numbers(), tmp_path / "first.ckpt"
    model, train = prepared(*kept, rows=range(20), drop_last=False)  # batches of 8, 8 and 4
    callbacks = [first, SaveAfterFirstEpoch(path)]
    trainer(max_epochs=2, callbacks=callbacks).fit(model, train)
    assert first.seen == list(range(40))
    again = Numbers()
    model, train = prepared(*kept, rows=range(20), drop_last=False)
    trainer(max_epochs=2, callbacks=[again]).fit(model, train, ckpt_path=path)
    assert again.seen == list(range(20, 40))


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("of the user"), KeyboardInterrupt()])
def test_the_workers_of_the_replay_end_with_a_fit_that_raised(error, prepared, trainer):
    class Raise(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if module.replay._workers:
                self.workers = list(module.replay._workers)
                raise error

    model, train = prepared("++method_kwargs.ood.mix.num_workers=1")
    caught = Raise()
    with pytest.raises((RuntimeError, KeyboardInterrupt, SystemExit)) as held:  # the trace, too
        trainer(callbacks=[caught]).fit(model, train)
    assert caught.workers and held.value is not None
    until = time.monotonic() + 5
    while any(worker.is_alive() for worker in caught.workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not set(caught.workers) & set(multiprocessing.active_children())


def test_starved_replay_warns_at_the_end(prepared, trainer):
    model, train = prepared(
        "method_kwargs.ood.threshold.percentile=0.8", "++method_kwargs.ood.queue.max_replays=1",
        "++method_kwargs.ood.mix.ratio=0.5", "max_epochs=11",
    )  # fmt: skip
    with pytest.warns(RuntimeWarning, match=r"replay: expected rows in at least 90% .*mix\.ratio"):
        trainer(max_epochs=11).fit(model, train)
    counts = model.selector.counts
    assert 0 < counts["replay_done"] < 0.9 * counts["replay_due"]


# -- a Trainer of the user's own ----------------------------------------------------------------


def test_a_run_too_short_to_flag_anything_is_an_error_before_its_first_step(prepared, trainer):
    model, train = prepared("++method_kwargs.ood.start=0.5")
    fit = trainer(max_epochs=1)  # 6 batches: 3 of 8 samples each to look at, 8 + 8 + 8 are needed
    fit.fit(model, train)
    assert model.selector.counts["judged"] > 0
    model, train = prepared("++method_kwargs.ood.start=0.5", "method_kwargs.ood.threshold.n=9")
    fit = trainer(max_epochs=1)
    said = r"samples of the run: expected at least 25 after ood\.start=0\.5.* got 24 \(6 batches"
    with pytest.raises(UserError, match=said):
        fit.fit(model, train)
    assert fit.global_step == 0
    trainer(fast_dev_run=True).fit(model, train)
    trainer(max_epochs=2).fit(model, train)


def test_neighbours_that_a_small_data_set_lacks_are_an_error(prepared, trainer):
    few = [f"++method_kwargs.ood.scorer.{name}=16" for name in ("k", "n_reference", "min_samples")]
    model, train = prepared(*few, rows=range(16))
    with pytest.raises(UserError, match=r"ood\.scorer\.k: expected at most 15: of the 16 rows"):
        trainer(max_epochs=8).fit(model, train)


@pytest.mark.parametrize("how", ["max_epochs", "max_time", "batches", "data"])
def test_a_run_without_a_step_is_an_error(how, prepared, trainer):
    kwargs = {
        "max_epochs": {"max_epochs": 0},
        "max_time": {"max_time": "00:00:00:00"},
        "batches": {"limit_train_batches": 0},
        "data": {},
    }[how]
    model, train = prepared(rows=range(5 if how == "data" else 16))
    with pytest.raises(UserError, match="training: expected at least 1 optimizer step, got none"):
        trainer(**kwargs).fit(model, train)
