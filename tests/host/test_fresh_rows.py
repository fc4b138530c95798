"""The host's online classifiers, accuracies and k-NN see the fresh rows of a mixed batch only."""

from __future__ import annotations

import pytest
import short_runs
import torch
from lightning.pytorch import Callback, seed_everything

OOD = "++method_kwargs.ood."


@pytest.fixture
def online_knn(registered, monkeypatch):
    """Let a checkout's k-NN run on today's torchmetrics, as the patch 0002 of its series does."""
    from solo.utils.knn import WeightedKNNClassifier
    from torchmetrics import Metric

    from solo_ood.host import installed

    if installed.generation() == "checkout":
        init = Metric.__init__
        monkeypatch.setattr(
            Metric, "__init__", lambda self, compute_on_step=None, **kw: init(self, **kw)
        )
        monkeypatch.setattr(WeightedKNNClassifier, "forward", lambda self, **kw: self.update(**kw))


class Seen(Callback):
    """Record what the classifiers, the accuracies and the k-NN's memory got at each step."""

    def on_train_start(self, trainer, module):
        self.steps, self.given = [], {"classifier": [], "momentum_classifier": []}
        for name, given in self.given.items():
            getattr(module, name).register_forward_hook(
                lambda _, inputs, logits, given=given: given.append((inputs[0], logits.detach()))
            )

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        step = {name: list(given) for name, given in self.given.items()}
        step["fresh"] = batch[2]
        step["knn"] = module.knn.train_targets[-1], module.knn.train_features[-1]
        step["acc1"] = float(trainer.callback_metrics["train_acc1_step"])
        step["momentum_acc1"] = float(trainer.callback_metrics["train_momentum_acc1_step"])
        step["loss"] = float(trainer.callback_metrics["train_class_loss_step"])
        step["replayed"] = (
            len(module.selector._pending["replayed"]) if module.selector._pending else 0
        )
        self.steps.append(step)
        for given in self.given.values():
            given.clear()


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_replays_reach_neither_classifiers_nor_accuracies_nor_the_knn(
    mode, online_knn, compose, build, loader, trainer
):
    cfg = compose(
        *short_runs.SOON, f"{OOD}scorer.name=oracle", f"{OOD}mix.mode={mode}",
        "+knn_eval.enabled=True", "+momentum.classifier=True",
    )  # fmt: skip
    seed_everything(1)
    model, seen = build(cfg), Seen()
    trainer(max_steps=16, callbacks=[seen]).fit(model, loader(cfg))
    mixed = [step for step in seen.steps if step["replayed"]]
    assert len(mixed) >= 8 and len(seen.steps) > len(mixed)
    for step in seen.steps:
        labels, feats = step["knn"]
        rows = 6 if mode == "replace" and step["replayed"] else 8
        labels = labels.unflatten(0, (2, rows))  # of two global crops
        assert torch.equal(labels[0], labels[1])
        if rows == 8:
            assert torch.equal(labels[0], step["fresh"])
        else:  # the kept ones, in their order
            kept = iter(step["fresh"].tolist())
            assert all(label in kept for label in labels[0].tolist())
        assert len(feats) == 2 * rows
        for name, metric in (("classifier", "acc1"), ("momentum_classifier", "momentum_acc1")):
            assert len(step[name]) == 2
            hits = 0
            for inputs, logits in step[name]:
                assert len(inputs) == rows and not inputs.requires_grad  # nor its gradient
                hits += int((logits.argmax(dim=1) == labels[0]).sum())
            assert step[metric] == pytest.approx(100 * hits / (2 * rows), abs=1e-3)
        # The memory of the k-NN holds the very features that the classifier got.
        assert torch.equal(feats, torch.cat([inputs for inputs, _ in step["classifier"]]))
        losses = [
            torch.nn.functional.cross_entropy(logits, labels[0]) for _, logits in step["classifier"]
        ]
        assert step["loss"] == pytest.approx(float(sum(losses)) / 2, rel=1e-5)
