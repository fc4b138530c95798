"""No step waits for the device: its verdicts are copied without waiting and read one step later."""

from __future__ import annotations

import pytest
import torch
from far_device import Far, FarDevice, HostWaited, move
from lightning.pytorch import Callback, seed_everything

from solo_ood.replay import mixin
from solo_ood.replay.mixing import drawn_order, mix
from solo_ood.selection.scorers import ExemplarScorer
from solo_ood.selection.selector import RareSelector
from solo_ood.settings.choices import SCORERS, THRESHOLDS
from solo_ood.settings.schema import parse

BATCH, RARE, DIM, STEPS = 16, 4, 8, 25
# `_send` is where scores go to (pinned) host memory; nothing else may copy there.
ALLOWED = ("_send",)
needs_gpu = pytest.mark.gpu  # torch's own check is of CUDA


def selector_of(scorer: str, threshold: str = "quota", **queue) -> RareSelector:
    block = {"name": scorer, "n_reference": 64, "min_samples": 32}
    if scorer == "exemplar":
        block.update(exemplars=[0, 1, 2], feats="eval")
    limits = {"name": threshold, "n": 64, "percentile": 0.8}
    cfg = parse({"scorer": block, "threshold": limits, "queue": queue})
    selector = RareSelector(cfg, DIM, num_classes=3)
    if isinstance(selector.scorer, ExemplarScorer):
        selector.scorer.set_exemplars(torch.randn(3, DIM))  # may wait, once in many steps
    return selector


def batches():
    for number in range(STEPS):
        indexes = torch.arange(BATCH) + number * BATCH
        feats = [torch.randn(BATCH, DIM) for _ in range(2)]
        feats[0][number % BATCH, 0] = float("nan") if number % 5 == 0 else 0.0
        yield indexes, feats, torch.randint(-1, 3, (BATCH,))


def select(selector: RareSelector, place) -> None:
    """Feed all batches, each of whose tensors ``place`` brings to a device."""
    for indexes, feats, targets in batches():
        embedded = selector.embed([place(x) for x in feats])
        selector.step(place(indexes), embedded, place(targets), RARE)
        selector.metrics()


@pytest.mark.parametrize("min_distance", [None, 0.5])
@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("scorer", SCORERS)
def test_selection_reads_nothing_from_the_device(scorer, threshold, min_distance):
    torch.manual_seed(0)
    here = selector_of(scorer, threshold, min_distance=min_distance)
    select(here, lambda x: x)
    torch.manual_seed(0)
    far = selector_of(scorer, threshold, min_distance=min_distance)
    move(far.scorer)
    with FarDevice(ALLOWED) as device:
        select(far, Far)
    here.judge_pending()
    far.judge_pending()
    assert device.copies > 0 and far.counts["judged"] > 0
    assert list(far.queue) == list(here.queue) and far.counts == here.counts


@pytest.mark.parametrize("mode", ["replace", "append"])
def test_mixing_reads_nothing_from_the_device(mode):
    def batch(rows):
        large = torch.randn(rows, 3, 4, 4).to(memory_format=torch.channels_last)
        crops = [Far(large), Far(torch.ones(rows, 3, 2, 2))]
        return [Far(torch.arange(rows)), crops, Far(torch.zeros(rows).long())]

    with FarDevice():
        order = drawn_order(8, 2, 0) if mode == "replace" else None
        indexes, crops, _ = mix(batch(8), batch(2), mode, order)
    assert isinstance(indexes, Far) and len(crops[0]) == (8 if mode == "replace" else 10)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: torch.linalg.cholesky(x),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: torch.equal(x, x),
        lambda x: torch.zeros(2, 2).to(x.device),
    ],
    ids=["item", "bool", "mask", "nonzero", "tolist", "cpu", "cholesky", "index", "equal", "to"],
)  # fmt: skip
def test_far_device_detects_synchronisation(wait):
    with FarDevice(), pytest.raises(HostWaited):
        wait(Far(torch.eye(2)))


@needs_gpu
@pytest.mark.parametrize("scorer", SCORERS)
def test_selection_does_not_synchronise_a_gpu(scorer):
    seed_everything(0, verbose=False)
    selector = selector_of(scorer).to(torch.device("cuda"))
    select(selector, lambda x: x.cuda())  # libraries are loaded at their first call
    ready = [[i.cuda(), [x.cuda() for x in feats], t.cuda()] for i, feats, t in batches()]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for indexes, feats, targets in ready:
            selector.step(indexes, selector.embed(feats), targets, RARE)
            selector.metrics()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert selector.counts["flagged"] > 0


class ErrorsInOurParts(Callback):
    """Let every synchronisation in ``dino_ood``'s own part of a step be an error."""

    def on_train_start(self, trainer, module):
        self.checked = 0
        self.mix = mixin.mix
        mixin.mix = self.checking(mixin.mix)
        module._select = self.checking(module._select)

    def checking(self, call):
        def checked(*args):
            # The first calls load libraries and start what waits once.
            self.checked += 1
            torch.cuda.set_sync_debug_mode("error" if self.checked > 20 else "default")
            try:
                return call(*args)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        return checked

    def on_train_end(self, trainer, module):
        mixin.mix = self.mix


@needs_gpu
@pytest.mark.parametrize("scorer", ["knn", "mahalanobis", "random", "oracle"])
def test_steps_of_a_real_run_do_not_synchronise_a_gpu(scorer, compose, build, loader, trainer):
    seed_everything(1)
    cfg = compose(
        f"++method_kwargs.ood.scorer.name={scorer}", "++method_kwargs.ood.queue.release=0"
    )
    errors = ErrorsInOurParts()
    fitter = trainer(accelerator="gpu", callbacks=[errors], max_steps=60)
    model = build(cfg)
    fitter.fit(model, loader(cfg))
    assert errors.checked > 60 and model.selector.counts["replayed"] > 0
