"""What only a CUDA device can show: precisions, compilation, memory formats, NCCL, moving state."""

from __future__ import annotations

import math
import warnings

import pytest
import short_runs
import torch
from lightning.pytorch import Callback, seed_everything

pytestmark = pytest.mark.gpu
OOD = "++method_kwargs.ood."
SOON = (*short_runs.SOON, f"{OOD}mix.num_workers=0")


class Losses(Callback):
    """Keep the loss of every step on the device."""

    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].detach())


def run(cfg, build, loader, trainer, steps=12, prepare=lambda model: None, **kwargs):
    """Train on the device; return the settled model and the losses (steps,)."""
    seed_everything(1)
    model = build(cfg)
    prepare(model)
    kept = Losses()
    fitter = trainer(max_steps=steps, accelerator="gpu", callbacks=[kept], **kwargs)
    fitter.fit(model, loader(cfg))
    model.selector.judge_pending()
    return model, torch.stack(kept.losses).cpu(), fitter


def check(model, losses):
    counts, selector = model.selector.counts, model.selector
    assert losses.isfinite().all()
    assert counts["flagged"] > 0 and counts["replayed"] > 0 and counts["not_finite"] == 0
    state = {**selector.scorer.state_dict(), **selector.threshold.state_dict()}
    floating = [v for v in state.values() if torch.is_tensor(v) and v.is_floating_point()]
    assert floating and all(value.dtype == torch.float32 for value in floating)


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("scorer", ["knn", "mahalanobis"])
def test_every_precision_flags_and_replays(precision, scorer, compose, build, loader, trainer):
    cfg = compose(*SOON, f"{OOD}scorer.name={scorer}")
    check(*run(cfg, build, loader, trainer, precision=precision)[:2])


def test_exemplars_are_embedded_on_the_device(compose, build, loader, trainer):
    cfg = compose("ood=exemplar", "method_kwargs.ood.scorer.exemplars=[1,5,30]", *SOON)
    check(*run(cfg, build, loader, trainer, precision="bf16-mixed")[:2])


def test_crops_are_kept_on_the_host(compose, build, loader, trainer):
    cfg = compose(*SOON, f"{OOD}queue.store=crops")
    model, losses, _ = run(cfg, build, loader, trainer, precision="bf16-mixed")
    check(model, losses)


def test_compiled_backbones_train_and_replay(compose, build, loader, trainer):
    from solo_ood.host import networks

    def compiled(model):
        for net in (networks.student(model), networks.teacher(model)):
            net.compile()

    cfg = compose(*SOON, f"{OOD}scorer.feats=eval")
    plain = run(cfg, build, loader, trainer, steps=1)[1]
    model, losses, _ = run(cfg, build, loader, trainer, prepare=compiled)
    check(model, losses)
    assert float(losses[0]) == pytest.approx(float(plain[0]), rel=1e-2)


def test_channels_last_trains_and_replays(compose, build, loader, trainer):
    def last(model):
        model.to(memory_format=torch.channels_last)

    check(*run(compose(*SOON), build, loader, trainer, prepare=last, precision="bf16-mixed")[:2])


def test_nccl_with_one_process(compose, build, loader, trainer):
    model, losses, fitter = run(compose(*SOON), build, loader, trainer, strategy="ddp")
    try:
        assert torch.distributed.get_backend() == "nccl"
        check(model, losses)
    finally:
        torch.distributed.destroy_process_group()


def test_off_is_stock_dino_on_the_device(compose, build, loader, trainer):
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        found = []
        for method, off in (("dino", ()), ("dino_ood", (f"{OOD}enabled=False",))):
            # Two global crops: stock DINO of the release knows no local ones.
            cfg = compose(*SOON, *off, f"method={method}", "augmentations.1.num_crops=0")
            seed_everything(1)
            model, kept = build(cfg), Losses()
            fitter = trainer(max_steps=6, accelerator="gpu", callbacks=[kept])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of operations that are not deterministic
                fitter.fit(model, loader(cfg))
            found.append(torch.stack(kept.losses).cpu())
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_a_run_goes_on_on_a_cpu_and_back(compose, build, loader, trainer, tmp_path):
    cfg = compose(*SOON, "max_epochs=10")  # so many teacher temperatures
    model, losses, fitter = run(cfg, build, loader, trainer)
    fitter.save_checkpoint(tmp_path / "gpu.ckpt")
    queue = list(model.selector.queue)
    steps = 12
    for accelerator in ("cpu", "gpu"):
        resumed = build(cfg)
        steps += 4
        fitter = trainer(max_steps=steps, accelerator=accelerator, max_epochs=10)
        fitter.fit(resumed, loader(cfg), ckpt_path=tmp_path / "gpu.ckpt")
        resumed.selector.judge_pending()
        assert resumed.selector.counts["judged"] > model.selector.counts["judged"]
        assert set(queue) & set(resumed.selector.queue)
        fitter.save_checkpoint(tmp_path / "gpu.ckpt")
        model, queue = resumed, list(resumed.selector.queue)
    assert (
        math.isfinite(float(fitter.callback_metrics["dino_loss_step"])) and losses.isfinite().all()
    )
