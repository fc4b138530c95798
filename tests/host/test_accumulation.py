"""Gradient accumulation and clipping: shares count optimizer steps, the queue counts batches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, seed_everything
from short_runs import SOON, SaveAfterFirstEpoch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset

OOD = "++method_kwargs.ood."


class Fixed(Dataset):
    """Digits as fixed crops, so that two runs see the same pixels."""

    def __init__(self, n):
        digits = load_digits()
        images = torch.tensor(digits.images[:n] / 16, dtype=torch.float32)
        self.images = F.interpolate(images[:, None], size=32).expand(-1, 3, -1, -1).contiguous()
        self.targets = digits.target[:n].tolist()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        return index, [image, image.flip(-1), image[:, 4:28, 4:28]], self.targets[index]


class Clock(Callback):
    """Record what moved after which batch."""

    def __init__(self):
        self.steps, self.queue_steps, self.teacher_moved, self.taus = [], [], [], []
        self.norms, self.taught = [], None

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.norm = norm_of(module)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        from solo_ood.host import networks

        teacher = [p.detach().clone() for p in networks.teacher(module).parameters()]
        if self.taught is not None:
            self.teacher_moved.append(not all(map(torch.equal, teacher, self.taught)))
        self.taught = teacher
        self.steps.append(trainer.global_step)
        self.queue_steps.append(module.selector.queue.step)
        self.taus.append(module.momentum_updater.cur_tau)
        self.norms.append(norm_of(module))


def norm_of(module):
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return float(torch.stack([gradient.norm() for gradient in gradients]).norm())


def test_start_and_teacher_follow_optimizer_steps_and_the_queue_follows_batches(
    compose, build, trainer
):
    clock = Clock()
    cfg = compose(*SOON, "method_kwargs.ood.start=0.5", "+accumulate_grad_batches=2")
    seed_everything(1)
    model = build(cfg)
    data = DataLoader(Fixed(48), batch_size=8)
    trainer(max_epochs=2, accumulate_grad_batches=2, callbacks=[clock]).fit(model, data)
    # 2 epochs of 6 batches are 6 optimizer steps; half of them is the first epoch
    assert clock.steps == [i // 2 for i in range(1, 13)]
    assert clock.queue_steps == [0] * 6 + list(range(1, 7))
    # A callback is asked before the method moves its teacher: it sees what the last batch did.
    assert clock.teacher_moved == [i % 2 == 0 for i in range(1, 12)]
    assert len(set(clock.taus)) == 6  # the first one and 5 updates; the last comes after
    assert model.momentum_updater.cur_tau == pytest.approx(1)
    selector = model.selector
    selector.judge_pending()
    # Fed: all rows since then but the replayed ones; scored without the first batch.
    sent = 6 * 8 - selector.counts["replayed"]
    assert selector.counts["replayed"] > 0 and selector.scorer.n_fed == sent
    assert selector.counts["judged"] + len(selector.threshold.waiting) == sent - 8


def gradients_of(batch_size, accumulate, compose, build, trainer):
    cfg = compose(
        "backbone.name=vit_tiny",
        "+backbone.kwargs.patch_size=8",
        "+backbone.kwargs.img_size=32",
        "method_kwargs.use_bn_in_head=False",
        f"{OOD}mix.ratio=0.0",
    )
    seed_everything(1)
    model = build(cfg)
    # The center moves with every batch, so the second half would get another one.
    model.dino_loss_func.center_momentum = 1.0
    gradients = {}

    class Gradients(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            named = module.named_parameters()
            gradients.update({k: p.grad.clone() for k, p in named if p.grad is not None})

    data = DataLoader(Fixed(16), batch_size=batch_size)
    fitter = trainer(
        fast_dev_run=accumulate, accumulate_grad_batches=accumulate, callbacks=[Gradients()]
    )
    fitter.fit(model, data)
    reference = model.selector.scorer.reference
    return gradients, reference.rows[reference.filled]


def test_two_batches_are_one_of_twice_the_size(compose, build, trainer):
    whole, embedded = gradients_of(16, 1, compose, build, trainer)
    halves, embedded_in_halves = gradients_of(8, 2, compose, build, trainer)
    assert whole.keys() == halves.keys() and len(whole) > 100
    for key, gradient in whole.items():
        torch.testing.assert_close(halves[key], gradient, rtol=1e-3, atol=1e-6, msg=key)
    torch.testing.assert_close(embedded_in_halves, embedded, rtol=1e-4, atol=1e-5)
    assert len(embedded) == 16


def test_resumed_run_equals_the_uninterrupted_one(compose, build, trainer, tmp_path):
    cfg = compose(*SOON, "+accumulate_grad_batches=2")
    path = tmp_path / "half.ckpt"
    models = []
    for callbacks, resumed in (([SaveAfterFirstEpoch(path)], None), ([], path)):
        seed_everything(1 + len(models))  # other weights, to be replaced by the checkpoint's
        models.append(build(cfg))
        data = DataLoader(Fixed(32), batch_size=8)
        fitter = trainer(max_epochs=2, accumulate_grad_batches=2, callbacks=callbacks)
        fitter.fit(models[-1], data, ckpt_path=resumed)
    mine, theirs = (model.state_dict() for model in models)
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert models[0].selector.counts == models[1].selector.counts
    assert models[0].selector.counts["replayed"] > 0


def test_the_trainer_clips_gradients(compose, build, trainer):
    clock = Clock()
    cfg = compose(*SOON)
    seed_everything(1)
    model = build(cfg)
    data = DataLoader(Fixed(48), batch_size=8)
    trainer(max_steps=6, gradient_clip_val=0.01, callbacks=[clock]).fit(model, data)
    model.selector.judge_pending()
    assert clock.norm > 0.1  # before
    assert clock.norms == pytest.approx([0.01] * 6, rel=1e-3)
    assert model.selector.counts["replayed"] > 0
