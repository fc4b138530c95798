"""What short training runs share: overrides that start replays soon, data, a checkpoint."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, Subset

SOON = (  # with TINY: samples are flagged from the third step on, and replayed from the fifth
    "method_kwargs.ood.scorer.min_samples=8",
    "method_kwargs.ood.threshold.n=8",
    "method_kwargs.ood.threshold.percentile=0.3",
    "++method_kwargs.ood.queue.release=0",
)

SMALL = [*SOON, "augmentations.1.num_crops=0", "augmentations.1.crop_size=32", "max_epochs=4"]

AT_ONCE = (  # in the second step of 8 samples
    "method_kwargs.ood.scorer.min_samples=2",
    "method_kwargs.ood.threshold.n=2",
    "method_kwargs.ood.threshold.percentile=0.5",
)


def loading(whole: DataLoader, rows, **kwargs) -> DataLoader:
    """Return a loader of these rows of the whole one's data, where the classes are mixed."""
    mixed = torch.randperm(len(whole.dataset), generator=torch.Generator().manual_seed(0)).tolist()
    return loading_of(whole, [mixed[row] for row in rows], **kwargs)


def loading_of(whole: DataLoader, rows, **kwargs) -> DataLoader:
    dataset = Subset(whole.dataset, rows)
    kwargs = {"batch_size": 8, "drop_last": True, **kwargs}
    return DataLoader(dataset, collate_fn=whole.collate_fn, **kwargs)


class SaveAfterFirstEpoch(Callback):
    """Save a checkpoint at the end of the first epoch."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


class Rows(Callback):
    """Record the fresh rows and the replays that reach the DINO step."""

    def on_train_start(self, trainer, module):
        self.fresh, self.replays = [], []
        select = module._select

        def selecting(batch, n_replayed):
            rows = batch[0].tolist()
            self.fresh.append(rows[: len(rows) - n_replayed])
            self.replays.append(rows[len(rows) - n_replayed :])
            select(batch, n_replayed)

        module._select = selecting
