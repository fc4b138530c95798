"""Replay of rare samples for any method with a teacher: the wiring."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from solo_ood.replay.crop_store import CropStore
from solo_ood.replay.mixing import drawn_order, mix
from solo_ood.replay.rare_loader import with_fresh_rows
from solo_ood.replay.setup import ReplaySetup
from solo_ood.replay.teacher_feats import broadcast_from_rank0
from solo_ood.selection.selector import RareSelector


class RareReplay(ReplaySetup):
    """Mixin that finds the rare samples of a momentum method's stream and replays them.

    It goes before the method among the bases, whose own step it calls with mixed batches::

        class MyMethod(RareReplay, DINO):
            def __init__(self, cfg):
                super().__init__(cfg)
                self.set_up_ood(ood_config)

    Batches are ``[indexes (B,), [crops (B, C, H, W), ...], targets (B,)]``, global crops first.
    An index ``-1 - i`` marks a fresh row that stands in for the sample i, which could not be read.

    Attributes:
        trained_rows: the dataset indexes (B,) of the newest step's rows, and how many of the last
            ones are replays; for callbacks that count what is trained on.
    """

    trained_rows: tuple[Tensor, int]

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """Mix queued samples into the batch, take the method's own step, look for rare samples.

        Args:
            batch: ``[indexes (B,), [crops (B, C, H, W), ...], targets (B,)]``.
            batch_idx: its number in the epoch.

        Returns:
            The loss of the method.
        """
        self._teacher_feats.clear()
        if self.selector is None or self.trainer.global_step < self._first_step:
            self.trained_rows = (batch[0], 0)
            loss = super().training_step(batch, batch_idx)
            self._teacher_feats.clear()  # of a transformer they keep all its tokens alive
            return loss
        batch, n_replayed = self._mixed(batch, self.selector)
        self.trained_rows = (batch[0], n_replayed)
        with self.replays_hidden(batch[2], n_replayed):
            loss = super().training_step(batch, batch_idx)
        self._select(batch, n_replayed)
        self._teacher_feats.clear()
        return loss

    def _mixed(self, batch: Sequence[Any], selector: RareSelector) -> tuple[Sequence[Any], int]:
        """Return the batch with m replayed rows at its end, and m; 0 where nothing is replayed."""
        rare = self._replayed_batch(batch)
        mode = self.ood.mix.mode
        if isinstance(self.replay, CropStore):
            batch = self.replay.assign_indexes(batch, self._n_assigned)
            self._n_assigned += len(batch[0])
        if rare is None:
            return batch, 0
        unreadable, fresh = rare[0] < 0, batch  # known on the host
        rare = self.trainer.strategy.batch_to_device(rare, self.device)
        n_replayed, order = len(rare[0]), None
        if mode == "replace":
            order = drawn_order(len(fresh[0]), n_replayed, selector.seed, selector.queue.step)
        batch = mix(batch, rare, mode, order)
        if unreadable.any():
            batch = with_fresh_rows(batch, fresh, unreadable, order)
        return batch, n_replayed

    def _select(self, batch: Sequence[Any], n_replayed: int) -> None:
        """Score ``batch``, whose last ``n_replayed`` rows are replays, and queue the rare rows."""
        selector = self.selector
        assert selector is not None  # for the type checker; training_step made sure
        indexes, crops, targets = batch
        feats = self._feats_of_step(crops[: self.num_large_crops])
        # A function of the step, so that a resumed run re-embeds them at the same steps.
        if self._look_now or selector.queue.step % self.ood.scorer.exemplar_every == 0:
            self._refresh_exemplars(selector)
            self._look_now = False
        one_process = self._largest_batch is None
        selector.step(
            indexes,
            selector.embed(feats),
            targets,
            n_replayed,
            gather=None if one_process else lambda x: self.all_gather(x).flatten(0, 1),
            broadcast=None if one_process else broadcast_from_rank0,
            padded_size=self._padded_size(n_replayed),
        )
        if isinstance(self.replay, CropStore) and self._last_batch is not None:
            self.replay.store(self._last_batch, selector.undecided)
        self._last_batch = batch if isinstance(self.replay, CropStore) else None
        if self._logs_are_read():
            self._log_metrics(selector, len(indexes))

    def _padded_size(self, n_replayed: int) -> int | None:
        """Return the rows of the largest batch of any process, replays included."""
        if self._largest_batch is None:
            return None
        return (
            self._largest_batch + n_replayed
            if self.ood.mix.mode == "append"
            else self._largest_batch
        )

    def _log_metrics(self, selector: RareSelector, batch_size: int) -> None:
        # Host tensors: a device tensor would have to be copied there and waited for.
        metrics = {k: torch.tensor(v, dtype=torch.float32) for k, v in selector.metrics().items()}
        for name, value in metrics.items():
            shown = name in ("flag_rate", "queue_fill")
            self.log(f"ood/{name}", value, prog_bar=shown, batch_size=batch_size)

    def _logs_are_read(self) -> bool:
        """Whether loggers take this step's values, or callbacks may, at the end of an epoch.

        Lightning takes up to a millisecond to note a value, more than the scoring, and forgets it
        at the next step unless it is one of every ``log_every_n_steps``.
        """
        trainer = self.trainer
        due = trainer._logger_connector.should_update_logs
        return due or trainer.is_last_batch or bool(trainer.fast_dev_run)

    def on_train_end(self) -> None:
        super().on_train_end()
        self.end_replay()
        if self.selector is not None:
            self.selector.judge_pending()
            for text in self.selector.warnings() if self.trainer.is_global_zero else ():
                warnings.warn(text, RuntimeWarning, stacklevel=2)
