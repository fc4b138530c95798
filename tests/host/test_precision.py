"""Half precision: the detector stays in float32, and finds what it finds in float32."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch import seed_everything
from short_runs import SOON
from torch.utils.data import DataLoader, Dataset

from solo_ood.selection.selector import RareSelector
from solo_ood.settings.choices import THRESHOLDS
from solo_ood.settings.schema import OODConfig, ScorerConfig, ThresholdConfig

OOD = "++method_kwargs.ood."
HALF = ("bf16-mixed", "bf16-true")


def state_of(selector):
    return {**selector.scorer.state_dict(), **selector.threshold.state_dict()}


def floating(selector):
    return [
        value
        for value in state_of(selector).values()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    ]


@pytest.mark.parametrize("feats", ["train", "eval"])
def test_scores_are_those_of_float32(feats, compose, build, loader, trainer):
    # Weights that stand still and no replay: every run sees the same pixels by the same network.
    cfg = compose(*SOON, "optimizer.lr=0", f"{OOD}mix.ratio=0.0", f"{OOD}scorer.feats={feats}")
    scores = {}
    for precision in ("32-true", *HALF):
        seed_everything(1)
        model = build(cfg)
        trainer(max_steps=4, precision=precision).fit(model, loader(cfg))
        model.selector.judge_pending()
        scores[precision] = model.selector.threshold.block
    exact = scores.pop("32-true")
    assert len(exact) == 8 and exact.std() > 0.01
    for got in scores.values():
        assert not torch.equal(got, exact)  # it did run in another precision
        # bfloat16 has 8 bits; the distances here are of the order of 0.1.
        torch.testing.assert_close(got, exact, rtol=0.05, atol=0.01)


@pytest.mark.parametrize(
    ("precision", "scorer"),
    [("bf16-mixed", "knn"), ("bf16-true", "knn"), ("bf16-true", "mahalanobis")],
)
def test_training_flags_and_replays(precision, scorer, compose, build, loader, trainer):
    cfg = compose(*SOON, f"{OOD}scorer.name={scorer}")
    seed_everything(1)
    model = build(cfg)
    fitter = trainer(max_steps=9, precision=precision)
    fitter.fit(model, loader(cfg))
    selector = model.selector
    selector.judge_pending()
    assert {p.dtype for p in model.parameters()} == {
        torch.bfloat16 if precision == "bf16-true" else torch.float32
    }
    assert all(value.dtype == torch.float32 for value in floating(selector))
    counts, threshold = selector.counts, selector.threshold
    assert counts["flagged"] > 0 and counts["replayed"] > 0 and counts["not_finite"] == 0
    assert torch.isfinite(threshold.block).all()
    assert math.isfinite(fitter.callback_metrics["dino_loss_step"])
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert counts["flagged"] == round(0.7 * counts["judged"])


class InFloat32(Dataset):
    """What a spawned worker reads: torchvision makes images of the process's default dtype."""

    def __init__(self, dataset):
        self.dataset, self.targets = dataset, dataset.targets

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        index, crops, target = self.dataset[index]
        return index, [crop.float() for crop in crops], target


def test_exemplars_are_embedded_in_true_half_precision(compose, build, loader, trainer):
    exemplars = "method_kwargs.ood.scorer.exemplars=[1,5,30]"
    cfg = compose("ood=exemplar", exemplars, *SOON)
    seed_everything(1)
    model = build(cfg)
    trainer(max_steps=5, precision="bf16-true").fit(
        model, DataLoader(InFloat32(loader(cfg).dataset), batch_size=8, shuffle=True)
    )
    model.selector.judge_pending()
    assert model.selector.counts["judged"] > 0 and model.selector.counts["not_finite"] == 0
    assert all(value.dtype == torch.float32 for value in floating(model.selector))


def selected(scorer, threshold, feats):
    """Return the selector after a stream of features (S, B, D)."""
    cfg = OODConfig(
        scorer=ScorerConfig(name=scorer, n_reference=64, min_samples=16),
        threshold=ThresholdConfig(name=threshold, n=32, percentile=0.83),
    )
    selector = RareSelector(cfg, feats.shape[2])
    for step, rows in enumerate(feats):
        indexes = torch.arange(len(rows)) + step * len(rows)
        selector.step(indexes, selector.embed([rows]), torch.full((len(rows),), -1), n_replayed=2)
    selector.judge_pending()
    return selector


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("scorer", ["knn", "mahalanobis", "random"])
def test_default_dtype_of_torch_changes_nothing(scorer, threshold):
    """Lightning makes bfloat16 the default while a step in true half precision runs."""
    feats = torch.randn(20, 16, 8, generator=torch.Generator().manual_seed(0))
    wanted = selected(scorer, threshold, feats)
    torch.set_default_dtype(torch.bfloat16)
    try:
        got = selected(scorer, threshold, feats)
    finally:
        torch.set_default_dtype(torch.float32)
    assert got.counts == wanted.counts and wanted.counts["flagged"] > 0
    assert list(got.queue) == list(wanted.queue)
    torch.testing.assert_close(state_of(got), state_of(wanted), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("scorer", ["knn", "mahalanobis"])
def test_float16_features_that_overflowed_are_left_out(scorer):
    feats = torch.randn(20, 16, 8, generator=torch.Generator().manual_seed(0)).half()
    feats[:, 1] = 6e4  # finite, but float16 cannot square it
    bad = feats.clone()
    bad[10, 3, 5], bad[11, 4] = float("inf"), float("nan")
    wanted = selected(scorer, "quota", feats.float())
    got = selected(scorer, "quota", feats)
    torch.testing.assert_close(state_of(got), state_of(wanted), rtol=0, atol=0, equal_nan=True)
    assert got.counts == wanted.counts and got.counts["not_finite"] == 0
    overflowed = selected(scorer, "quota", bad)
    assert overflowed.counts["not_finite"] == 2

    def seen(selector):
        return selector.counts["judged"] + len(selector.threshold.waiting)

    assert seen(overflowed) == seen(got) - 2
    learnt = [value for key, value in overflowed.scorer.state_dict().items() if "extra" not in key]
    assert not any(value.isinf().any() for value in learnt)
    assert all(value.isfinite().all() for value in learnt) or scorer == "knn"  # its free slots


@pytest.mark.gpu  # a GradScaler of float16
def test_skipped_steps_of_the_grad_scaler_leave_the_detector_alone(compose, build, loader, trainer):
    from lightning.pytorch.plugins.precision import MixedPrecision

    cfg = compose(*SOON)
    seed_everything(1)
    model = build(cfg)
    trained = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    # So large that the scaled gradients of the first steps are Inf: those steps are skipped.
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**120)
    plugin = MixedPrecision("16-mixed", "cuda", scaler=scaler)
    trainer(max_steps=9, accelerator="gpu", plugins=[plugin]).fit(model, loader(cfg))
    model.selector.judge_pending()
    assert all(torch.equal(p.cpu(), old) for p, old in zip(trained, before))
    counts = model.selector.counts
    assert counts["not_finite"] == 0 and counts["replayed"] > 0
    assert all(value.dtype == torch.float32 for value in floating(model.selector))
