"""Files that cannot be read: what a run survives, and what it says."""

from __future__ import annotations

import re

import pytest
import torch
from damaged import DAMAGE, NEVER_LEAVE, OOD, At, Said, Steps, damage, queue_of
from short_runs import SaveAfterFirstEpoch

from solo_ood.errors import UserError
from solo_ood.replay.mixing import drawn_order
from solo_ood.replay.rare_loader import RareLoader


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
