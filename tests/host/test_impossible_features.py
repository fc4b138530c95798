"""Features that are no numbers, or all the same: nothing else changes."""

from __future__ import annotations

import math

import pytest
import torch
from damaged import NEVER_LEAVE, OOD, At, Steps

from solo_ood.selection.selector import RareSelector
from solo_ood.settings.schema import parse


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
