"""``dino_ood`` in the real host: the DINO step, the replay, the checkpoints."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.loggers import CSVLogger
from short_runs import AT_ONCE
from torch.utils.data import DataLoader, Dataset

OOD = "++method_kwargs.ood."


class Losses(Callback):
    """Record the loss of every training step."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append(float(outputs["loss"]))


def run(cfg, build, loader, trainer, callbacks=(), **kwargs):
    seed_everything(1)
    model = build(cfg)
    losses = Losses()
    fitter = trainer(callbacks=[losses, *callbacks], **kwargs)
    fitter.fit(model, loader(cfg))
    return model, losses.values


def test_disabled_is_stock_dino_bit_for_bit(compose, build, loader, trainer):
    global_only = "augmentations.1.crop_size=32"  # stock DINO has no loss for local crops
    states = {}
    for method in ("dino", "dino_ood"):
        cfg = compose(
            f"method={method}", "method_kwargs.ood.enabled=False", global_only,
            "augmentations.0.num_crops=1",
        )  # fmt: skip
        model, losses = run(cfg, build, loader, trainer, max_steps=15)
        states[method] = (losses, model.state_dict(), torch.get_rng_state())
    (losses, weights, rng), (ours, our_weights, our_rng) = states["dino"], states["dino_ood"]
    assert losses == ours
    assert weights.keys() == our_weights.keys()
    assert all(torch.equal(weights[key], our_weights[key]) for key in weights)
    assert torch.equal(rng, our_rng)


class PaperLoss(Callback):
    """Recompute DINO's loss from the crops alone, by the formula of the paper."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        from solo_ood.host import networks

        _, crops, _ = batch
        for crop in crops:
            crop.requires_grad_()
        self.crops = crops
        state = {k: v.clone() for k, v in module.state_dict().items()}
        with torch.no_grad():
            student = [module.head(networks.student(module)(x)) for x in crops]
            teacher = [module.momentum_head(networks.teacher(module)(x)) for x in crops[:2]]
        module.load_state_dict(state)  # BatchNorm's running statistics moved
        center = module.dino_loss_func.center
        temperature = module.dino_loss_func.teacher_temp_schedule[0]
        terms = []
        for t, teacher_z in enumerate(teacher):
            target = F.softmax((teacher_z - center) / temperature, dim=1)
            for s, student_z in enumerate(student):
                if s != t:
                    log_p = F.log_softmax(student_z / module.dino_loss_func.student_temp, dim=1)
                    terms.append(-(target * log_p).sum(dim=1).mean())
        assert len(terms) == 2 * (len(crops) - 1)
        self.expected = torch.stack(terms).mean()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.loss = trainer.callback_metrics["dino_loss_step"]
        self.gradients = [crop.grad for crop in self.crops]


@pytest.mark.parametrize("n_local", [0, 1, 3])
def test_loss_over_all_crops_matches_paper(n_local, compose, build, loader, trainer):
    cfg = compose(f"augmentations.1.num_crops={n_local}", f"{OOD}mix.ratio=0.0")
    paper = PaperLoss()
    run(cfg, build, loader, trainer, [paper], fast_dev_run=1)
    torch.testing.assert_close(paper.loss, paper.expected, rtol=1e-5, atol=1e-6)
    assert len(paper.gradients) == 2 + n_local
    assert all(gradient.abs().sum() > 0 for gradient in paper.gradients)


class Batches(Callback):
    """Record the rows that reached the DINO step."""

    def setup(self, trainer, module, stage):
        from solo_ood.training.method import MultiCropDINO

        self.indexes, self.sizes, self.targets_right = [], [], True
        self.step = step = MultiCropDINO.training_step

        def recorded(model, batch, batch_idx):
            self.indexes.append(batch[0].tolist())
            self.sizes.append([len(crop) for crop in batch[1]])
            labels = [trainer.train_dataloader.dataset.targets[i] for i in batch[0].tolist()]
            self.targets_right &= labels == batch[2].tolist()
            return step(model, batch, batch_idx)

        MultiCropDINO.training_step = recorded

    def teardown(self, trainer, module, stage):
        from solo_ood.training.method import MultiCropDINO

        MultiCropDINO.training_step = self.step


@pytest.mark.parametrize(("mode", "size"), [("replace", 8), ("append", 10)])
def test_replays_are_the_configured_share_of_the_batch(mode, size, compose, build, loader, trainer):
    cfg = compose(f"{OOD}mix.mode={mode}", f"{OOD}mix.ratio=0.25", f"{OOD}queue.release=0")
    batches = Batches()
    model, _ = run(cfg, build, loader, trainer, [batches], max_steps=60)
    replaying = [sizes for sizes in batches.sizes[30:]]
    counts = model.selector.counts
    assert batches.targets_right
    assert all(sizes == [size, size, size] for sizes in replaying)
    # The last step is still on its way to the host; before it, every replay had 2 rows.
    assert counts["replayed"] >= 2 * 30 - 2
    assert len(model.selector.queue) >= 2
    repeated = Counter(index for rows in batches.indexes[30:] for index in rows[-2:])
    assert max(repeated.values()) > 1


def test_flag_rate_meets_its_target_within_the_printed_bound(compose, build, loader, trainer):
    model, _ = run(compose(), build, loader, trainer, max_steps=60)
    selector = model.selector
    selector.judge_pending()
    judged = selector.counts["judged"]
    assert judged == int(selector.threshold.n_judged) > 200
    bound = selector.threshold.rate_bound
    assert abs(selector.counts["flagged"] / judged - 0.2) <= bound < 0.003


class Metrics(Callback):
    """Record what there is to log after every batch."""

    def __init__(self):
        self.values = []

    def setup(self, trainer, module, stage):
        self.trainer = trainer

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append({f"ood/{k}": v for k, v in module.selector.metrics().items()})


@pytest.mark.parametrize("accumulated", [1, 2])
def test_loggers_and_callbacks_miss_no_value(
    accumulated, compose, build, loader, trainer, tmp_path
):
    metrics, logger = Metrics(), CSVLogger(tmp_path)
    run(
        compose(), build, loader, trainer, [metrics], logger=logger, log_every_n_steps=3,
        limit_train_batches=10, accumulate_grad_batches=accumulated,
    )  # fmt: skip
    rows = list(csv.DictReader((Path(logger.log_dir) / "metrics.csv").open()))
    logged = [row for row in rows if row["ood/queue_fill"]]
    assert len(logged) == 6 // accumulated
    assert [row["step"] for row in logged] == [r["step"] for r in rows if r["dino_loss_step"]]
    for row in logged:
        # With accumulation, a logger gets the values of the last batch of an optimisation step.
        expected = metrics.values[(int(row["step"]) + 1) * accumulated - 1]
        assert all(float(row[name]) == pytest.approx(value) for name, value in expected.items())
    seen = metrics.trainer.callback_metrics
    assert all(float(seen[name]) == pytest.approx(v) for name, v in metrics.values[-1].items())


def test_nothing_is_scored_before_the_start(compose, build, loader, trainer):
    cfg = compose("method_kwargs.ood.start=0.5")
    model, _ = run(cfg, build, loader, trainer, limit_train_batches=6)
    # 2 epochs of 6 steps: the second half feeds 6 batches of at most 8 fresh rows
    assert 0 < model.selector.scorer.n_fed <= 6 * 8
    assert model.selector.queue.step == 6


def test_no_features_are_kept_between_steps(compose, build, loader, trainer):
    held = []

    class Held(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            held.append(len(module._teacher_feats))

    cfg = compose("method_kwargs.ood.start=0.5", *AT_ONCE)
    run(cfg, build, loader, trainer, [Held()], limit_train_batches=2)
    assert held == [0, 0, 0, 0]


def test_oracle_without_labels_is_an_error(compose, build, trainer):
    class Unlabelled(Images):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.targets = [-1] * len(self.targets)

    model = build(compose(f"{OOD}scorer.name=oracle"))
    with pytest.raises(ValueError, match="oracle: expected labelled training data"):
        trainer(fast_dev_run=True).fit(model, DataLoader(Unlabelled(16, crops=3), batch_size=8))


def test_other_than_two_global_crops_is_an_error(compose, build):
    with pytest.raises(ValueError, match="expected 2 global crops .* got 3"):
        build(compose("augmentations.0.num_crops=3"))


def test_validation_feeds_nothing(compose, build, loader, trainer):
    cfg = compose()
    model, _ = run(cfg, build, loader, trainer, fast_dev_run=4)
    before = model.selector.scorer.n_fed
    validation = DataLoader(Images(16, crops=1, with_index=False), batch_size=8)
    trainer().validate(model, validation, verbose=False)
    assert before > 0 and model.selector.scorer.n_fed == before
    assert not model._teacher_feats


class Images(Dataset):
    """Digits as fixed crops, so that two runs see the same pixels."""

    def __init__(self, n, crops=2, with_index=True):
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.tensor(digits.images[:n] / 16, dtype=torch.float32)
        self.images = F.interpolate(images[:, None], size=32).expand(-1, 3, -1, -1).contiguous()
        self.targets = digits.target[:n].tolist()
        self.crops, self.with_index = crops, with_index

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if not self.with_index:
            return self.images[index], self.targets[index]
        return index, [self.images[index]] * self.crops, self.targets[index]


def fixed_loader(n=48):
    return DataLoader(Images(n, crops=3), batch_size=8, drop_last=True)


class SaveAt(Callback):
    def __init__(self, epoch, path):
        self.epoch, self.path = epoch, path

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)


EXEMPLAR = (
    "ood=exemplar",
    "method_kwargs.ood.scorer.exemplars=[1,5,30]",
    f"{OOD}scorer.exemplar_every=5",  # looked at in the step 10 and, after a resume at 12, in 15
)
RESUME = ("augmentations.1.crop_size=24", "max_epochs=4", f"{OOD}queue.release=0")


@pytest.mark.parametrize("scorer", [(), EXEMPLAR], ids=["knn", "exemplar"])
def test_resumed_run_equals_the_uninterrupted_one(scorer, compose, build, trainer, tmp_path):
    cfg = compose(*RESUME, *scorer)
    path = tmp_path / "half.ckpt"
    seed_everything(1)
    straight = build(cfg)
    trainer(max_epochs=4, callbacks=[SaveAt(1, path)]).fit(straight, fixed_loader())

    seed_everything(2)  # other weights, to be replaced by the checkpoint's
    resumed = build(compose(*RESUME, *scorer))
    trainer(max_epochs=4).fit(resumed, fixed_loader(), ckpt_path=path)

    assert straight.selector.counts == resumed.selector.counts
    assert straight.selector.counts["replayed"] > 0
    assert list(straight.selector.queue) == list(resumed.selector.queue)
    assert straight.momentum_updater.cur_tau == resumed.momentum_updater.cur_tau
    mine, theirs = straight.state_dict(), resumed.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    mine, theirs = (m.selector.scorer.state_dict() for m in (straight, resumed))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


def test_plain_dino_and_dino_ood_resume_from_each_other(compose, build, trainer, tmp_path):
    overrides = (
        "augmentations.1.crop_size=32",
        "augmentations.0.num_crops=1",
        "max_epochs=2",
        *AT_ONCE,
    )
    images = DataLoader(Images(16), batch_size=8)
    for first, second in (("dino", "dino_ood"), ("dino_ood", "dino")):
        path = tmp_path / f"{first}.ckpt"
        before = build(compose(*overrides, f"method={first}"))
        trainer(max_epochs=1).fit(before, images)
        before.trainer.save_checkpoint(path)
        after = build(compose(*overrides, f"method={second}"))
        fitter = trainer(max_epochs=2)
        fitter.fit(after, images, ckpt_path=path)
        assert fitter.global_step == 4


def test_checkpoint_loads_in_the_safe_mode_of_torch(compose, build, trainer, tmp_path):
    model = build(compose())
    trainer(max_epochs=2).fit(model, fixed_loader(24))
    path = tmp_path / "state.pt"
    checkpoint = {}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    loaded = torch.load(path, weights_only=True)
    assert loaded["dino_ood"]["selector"]["counts"] == model.selector.counts


def test_state_of_another_feature_size_is_an_error(compose, build, trainer):
    model = build(compose())
    checkpoint = {}
    model.on_save_checkpoint(checkpoint)
    checkpoint["dino_ood"]["selector"]["settings"]["feature size"] = 7
    with pytest.raises(ValueError, match="made with, feature size=7, got feature size=128"):
        model.on_load_checkpoint(checkpoint)


def test_detector_is_not_in_the_module_tree(compose, build):
    stock = build(compose("method=dino"))
    ours = build(compose())
    assert stock.state_dict().keys() == ours.state_dict().keys()


def test_dataset_without_indexes_is_an_error(compose, build, trainer):
    class NoIndex(Images):
        def __getitem__(self, index):
            return 0.5, [self.images[index]] * 3, self.targets[index]

    with pytest.raises(ValueError, match="training dataset.*expected .index, crops, target"):
        trainer(fast_dev_run=True).fit(build(compose()), DataLoader(NoIndex(16), batch_size=8))


def test_crops_can_be_kept_instead_of_indexes(compose, build, trainer):
    cfg = compose(f"{OOD}queue.store=crops", f"{OOD}queue.release=0", "max_epochs=8")
    model = build(cfg)
    trainer(max_epochs=8).fit(model, fixed_loader())
    assert model.selector.counts["replayed"] > 0


def test_eval_features_do_not_change_teacher_batchnorm(compose, build):
    from solo_ood.host import networks
    from solo_ood.replay.eval_mode import eval_feats

    model = build(compose()).train()
    images = Images(8).images
    before = {k: v.clone() for k, v in networks.teacher(model).state_dict().items()}
    alone = eval_feats(networks.teacher(model), [images[:1]])[0]
    together = eval_feats(networks.teacher(model), [images])[0]
    torch.testing.assert_close(alone[0], together[0], rtol=1e-4, atol=1e-5)
    assert networks.teacher(model).training
    assert all(torch.equal(v, before[k]) for k, v in networks.teacher(model).state_dict().items())
