"""Batches in ``channels_last`` reach both networks in it, whatever is mixed into them."""

from __future__ import annotations

import pytest
import short_runs
import torch
from lightning.pytorch import Callback, seed_everything

OOD = "++method_kwargs.ood."
SOON = (*short_runs.SOON, f"{OOD}scorer.feats=eval")


class ChannelsLast(Callback):
    """Hand over the crops in channels_last on request; record in which form networks get them."""

    def __init__(self, convert):
        self.convert = convert
        self.kept = {"student": [], "teacher": [], "teacher in eval mode": []}

    def setup(self, trainer, module, stage):
        from solo_ood.host import networks

        self.hooks = []
        for name in ("student", "teacher"):
            net = getattr(networks, name)(module)
            self.hooks.append(net.register_forward_pre_hook(self.recorder(name)))

    def recorder(self, name):
        def record(net, args):
            key = name if net.training else f"{name} in eval mode"
            kept = args[0].is_contiguous(memory_format=torch.channels_last)
            self.kept[key].append(kept)

        return record

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if self.convert:
            batch[1][:] = [crop.to(memory_format=torch.channels_last) for crop in batch[1]]

    def teardown(self, trainer, module, stage):
        for hook in self.hooks:
            hook.remove()


def forms(cfg, build, loader, trainer, convert, steps):
    seed_everything(1)
    model = build(cfg).to(memory_format=torch.channels_last)
    recorded = ChannelsLast(convert)
    trainer(max_steps=steps, callbacks=[recorded]).fit(model, loader(cfg))
    return model, recorded.kept


@pytest.mark.parametrize(("mode", "store"), [("append", "indexes"), ("replace", "crops")])
def test_mixed_batches_stay_in_channels_last(mode, store, compose, build, loader, trainer):
    from solo_ood.host import networks

    off = "+performance.disable_channel_last=True"  # a checkout converts whatever it gets
    cfg = compose(*SOON, f"{OOD}mix.mode={mode}", f"{OOD}queue.store={store}", off)
    model, kept = forms(cfg, build, loader, trainer, convert=True, steps=8)
    model.selector.judge_pending()
    assert model.selector.counts["replayed"] > 0
    assert {name: len(forms) for name, forms in kept.items()} == {
        "student": 8 * 3,  # 2 global crops and a local one
        "teacher": 8 * 2,
        "teacher in eval mode": 8 * 2,
    }
    assert all(all(forms) for forms in kept.values())
    weights = [p for p in networks.student(model).parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


def test_disable_channel_last_applies_to_eval_features(compose, build, loader, trainer):
    from solo_ood.host import installed

    if installed.generation() == "release":
        pytest.skip("solo-learn 1.0.2 has no performance.disable_channel_last")
    for off in (False, True):
        cfg = compose(*SOON, f"+performance.disable_channel_last={off}")
        _, kept = forms(cfg, build, loader, trainer, convert=False, steps=2)
        assert all(set(forms) == {not off} for forms in kept.values())
