"""``dino_ood``: solo-learn's DINO with real multi-crop and replay of rare samples."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from solo.methods.dino import DINO
from torch import Tensor, nn

from solo_ood.data.training_images import datasets_of, show_all_bits
from solo_ood.host import arguments, installed, networks
from solo_ood.replay.mixin import RareReplay
from solo_ood.training import atomic_checkpoint
from solo_ood.training.callbacks import (
    EndReplay,
    RequireSamples,
    RequireSteps,
    SigtermExitStatus,
)
from solo_ood.training.loggers import with_loggers
from solo_ood.training.progress import Progress


class MultiCropDINO(DINO):
    """DINO whose loss is over all crops, also where the host leaves the local ones out of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not installed.has_multicrop_dino():
            self.dino_loss_func.num_large_crops = self.num_crops

    def on_train_start(self) -> None:
        super().on_train_start()
        # The host sets it in on_train_epoch_start, which Lightning leaves out when it resumes
        # inside an epoch: the teacher's temperature would be that of epoch 0.
        self.dino_loss_func.epoch = self.current_epoch

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """The host's own step; with local crops, its shared step and the paper's loss.

        DINO (Caron et al., 2021, arXiv:2104.14294), eq. 3: the mean cross-entropy over all pairs of
        a teacher's global crop and another crop of the student.
        """
        if not self.multicrop or installed.has_multicrop_dino():
            return super().training_step(batch, batch_idx)
        out = super(DINO, self).training_step(batch, batch_idx)
        z = list(out.get("z", ()))  # the newer host ran the head on the global crops already
        z += [self.head(feats) for feats in out["feats"][len(z) :]]
        with torch.no_grad():
            teacher_z = out.get("momentum_z") or [
                self.momentum_head(feats) for feats in out["momentum_feats"]
            ]
        dino_loss = self.dino_loss_func(torch.cat(z), torch.cat(teacher_z))
        self.log("dino_loss", dino_loss, on_epoch=True, sync_dist=True)
        return dino_loss + out["loss"]


class DINOOOD(RareReplay, MultiCropDINO):
    """DINO that finds the rare samples of its stream and replays them, on either host.

    The DINO step itself is the host's. It takes the host's own arguments; the block
    ``method_kwargs.ood`` (``ood`` in keyword form) configures what is added.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        setup = arguments.split_arguments(args, kwargs)
        with arguments.refusals_named():
            super().__init__(*setup.args, **setup.kwargs)
        networks.check_crops(self.teacher, setup.crop_sizes)
        self.set_up_ood(setup.ood)
        self._loggers, self._progress = setup.loggers, Progress()

    @property
    def teacher(self) -> nn.Module:
        return networks.teacher(self)

    def setup(self, stage: str) -> None:
        """Make the checkpoints of this run atomic, before Lightning reads or writes one."""
        for line in show_all_bits(*datasets_of(self.trainer)):
            if self.trainer.is_global_zero:
                print(line, file=sys.stderr)
        super().setup(stage)
        atomic_checkpoint.write_atomically(self.trainer.strategy)

    def configure_callbacks(self) -> list[Callback]:
        """Return the run's own; the last hook before Lightning sets its loggers up."""
        trainer = self._trainer
        # A Trainer without loggers was asked for, or is a trial run.
        if self._loggers and trainer is not None and trainer.loggers and not trainer.fast_dev_run:
            root = Path(trainer.default_root_dir)
            trainer.loggers = with_loggers(trainer.loggers, self._loggers, root)
        own = [self._progress, RequireSamples(), RequireSteps(), SigtermExitStatus(), EndReplay()]
        return [*super().configure_callbacks(), *own]

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """The step of the bases; the loss is shown when logs are read, which waits for it."""
        loss = super().training_step(batch, batch_idx)
        if self._progress.active and self._logs_are_read():
            self.log("loss", loss.detach(), prog_bar=True, logger=False)
        return loss
