"""What tests of a few training steps share: overrides that start replays soon, a checkpoint."""

from __future__ import annotations

from lightning.pytorch import Callback

SOON = (  # with TINY: samples are flagged from the third step on, and replayed from the fifth
    "method_kwargs.ood.scorer.min_samples=8",
    "method_kwargs.ood.threshold.n=8",
    "method_kwargs.ood.threshold.percentile=0.3",
    "++method_kwargs.ood.queue.release=0",
)

AT_ONCE = (  # in the second step of 8 samples
    "method_kwargs.ood.scorer.min_samples=2",
    "method_kwargs.ood.threshold.n=2",
    "method_kwargs.ood.threshold.percentile=0.5",
)


class SaveAfterFirstEpoch(Callback):
    """Save a checkpoint at the end of the first epoch."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)
