"""Keep the source of replays in step with the trainer: the loader of the epoch, last batch, end."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import BatchSampler

from solo_ood.errors import UserError
from solo_ood.replay.crop_store import CropStore
from solo_ood.replay.exemplars import Exemplars
from solo_ood.replay.positions import same_file
from solo_ood.replay.rare_loader import RareLoader, drop_changed
from solo_ood.selection.classes import rare_classes, targets_of
from solo_ood.selection.selector import RareSelector
from solo_ood.settings.choices import SCORERS
from solo_ood.settings.ratio import ratio_at
from solo_ood.settings.schema import OODConfig, replay_rows

if TYPE_CHECKING:
    from solo.methods.base import BaseMomentumMethod as Base
else:
    Base = object


class ReplaySource(Base):
    """Mixin that keeps the source of the replayed rows in step with the trainer.

    Attributes:
        ood: the checked configuration.
        selector: the queue's owner; ``None`` = no replay at all.
        replay: where the replayed rows come from; ``None`` = from nowhere.
        exemplars: what the scorer ``exemplar`` reads.
    """

    ood: OODConfig
    selector: RareSelector | None
    replay: RareLoader | CropStore | None
    exemplars: Exemplars | None
    _first_step: int  # optimizer step at which scoring starts
    _n_steps: float  # of the whole run
    _look_now: bool  # at exemplars that are others or of other data, whatever the step
    _loader: Any  # whose samples are replayed
    _dataset: Any  # its dataset
    _last_batch: Sequence[Any] | None

    def on_train_epoch_start(self) -> None:
        """Follow the trainer to another loader (``reload_dataloaders_every_n_epochs``)."""
        super().on_train_epoch_start()
        if self.selector is not None and self.trainer.train_dataloader is not self._loader:
            self._set_source(self.trainer.train_dataloader, self.selector)

    def _total_steps(self) -> float:
        """Return the optimizer steps of the run; NaN if Lightning cannot tell."""
        if self.ood.start == 0 and self.ood.mix.ratio_end is None:
            return 0
        try:
            return float(self.trainer.estimated_stepping_batches)
        except Exception:  # gradients accumulated by epoch
            return float("nan")

    def _set_source(self, loader: Any, selector: RareSelector) -> None:
        """Take the training data from ``loader``: what is replayed, what its labels say."""
        trainer, ood = self.trainer, self.ood
        dataset, previous = getattr(loader, "dataset", None), self._dataset
        # Kept crops do not depend on the dataset: their numbers are no dataset indexes.
        by_index = ood.queue.store == "indexes"
        others = previous is not None and dataset is not previous
        if others and by_index:
            same_sample = same_file(previous, dataset)
            selector.drop_changed_indexes(same_sample)
            drop_changed(selector.queue, same_sample)
        if ood.scorer.exemplars and (others or self.exemplars is None):
            self._exemplars_from(loader, ood.scorer.exemplars, selector)
            self._look_now |= others
        self._loader, self._dataset = loader, dataset
        self._set_epoch(selector)
        self._rows = rows = replay_rows(ood, self.batch_size, trainer.world_size)
        if rows == 0:
            self.replay = None
        elif ood.queue.store == "indexes":
            replay = RareLoader(
                loader, selector.queue, rows, ood.mix.num_workers, trainer.global_rank,
                trainer.world_size, selector.seed,
            )  # fmt: skip
            if isinstance(self.replay, RareLoader):
                self.replay.close()
                if dataset is previous:
                    replay.continue_from(self.replay)
            self.replay = replay
        elif trainer.world_size > 1:
            raise UserError(
                "ood.queue.store=crops",
                expected="1 process, since no process holds the crops of another",
                got=f"{trainer.world_size} processes",
                remedy="Use ood.queue.store=indexes.",
            )
        elif self.replay is None:
            self.replay = CropStore(selector.queue, rows)
        self._largest_batch, self._smallest_batch = self._batch_sizes(loader)
        labels = targets_of(dataset)
        labelled = SCORERS[ood.scorer.name].needs_labels
        if labels is None and labelled and hasattr(dataset, "__len__"):
            raise UserError(
                f"ood.scorer.name={ood.scorer.name}",
                expected="labelled training data",
                got="none with labels",
                remedy="It is a control for labelled data; use ood.scorer.name=knn.",
            )
        if ood.rare_classes is None:
            selector.set_rare_classes([] if labels is None else rare_classes(labels))

    def _set_epoch(self, selector: RareSelector) -> None:
        """Tell the queue how long an epoch is, in which its replays are counted and capped."""
        exposures, batches = selector.queue.exposures, self.trainer.num_training_batches
        exposures.epoch = float(batches)
        if exposures.max_per_epoch is not None and exposures.epoch == float("inf"):
            raise UserError(
                "ood.queue.max_replays_per_epoch",
                expected="training data with a length, so that an epoch has a number of batches",
                got="data without one",
                remedy="Use ood.queue.max_replays_per_run, or set limit_train_batches.",
            )

    def _exemplars_from(self, loader: Any, given: list[Any], selector: RareSelector) -> None:
        """Find the exemplars in the data of ``loader``, or keep those of the previous data."""
        try:
            found = Exemplars(given, loader, self.ood.mix.num_workers, selector.seed)
        except UserError as error:
            if self.exemplars is None:
                raise
            remedy = "The run goes on with those of the data before."
            warnings.warn(f"{error} {remedy}", RuntimeWarning, stacklevel=2)
            return
        if self.exemplars is not None:
            self.exemplars.close()
        self.exemplars = found

    def _batch_sizes(self, loader: Any) -> tuple[int | None, int | None]:
        """Return the fresh rows of the largest and of the smallest batch of any process.

        With one process they are not needed: ``None``.
        """
        if self.trainer.world_size == 1:
            return None, None
        sampler = getattr(loader, "batch_sampler", None)  # DALI's loaders have none
        sizes = [getattr(x, "batch_size", None) for x in (loader, sampler)] + [self.batch_size]
        most = last = int(next(filter(None, sizes)))
        if isinstance(sampler, BatchSampler) and not sampler.drop_last:
            # torch's annotations give samplers no length.
            last = len(sampler.sampler) % most or most  # type: ignore[arg-type]
        sizes = self.all_gather(torch.tensor([most, -last], device=self.device))
        most, last = sizes.reshape(-1, 2).amax(dim=0).tolist()  # waits, before the first step only
        return most, -last

    def _replayed_batch(self, batch: Sequence[Any]) -> Sequence[Any] | None:
        """Return what to replay with ``batch``; ``None`` if the batch has no row to spare.

        Such a batch ends an epoch of a loader that keeps its last rows. All processes must skip the
        replay at the same step, since all draw from their copies of one queue.
        """
        if self.replay is None or self.selector is None:
            return None
        if self.ood.mix.mode == "replace":
            if self._smallest_batch is None and len(batch[0]) <= self._rows:
                return None
            if (
                self._smallest_batch is not None
                and self._smallest_batch <= self._rows
                and self.trainer.is_last_batch
            ):
                return None
        self.replay.rows = self._rows_now()
        if self.replay.rows == 0:
            return None
        rare, counts = self.replay.next(), self.selector.counts
        # With a cap fewer replays are what was asked for.
        if counts["judged"] and not self.selector.queue.exposures.capped:
            if rare is not None and not counts["replay_done"]:
                counts["replay_due"] = 0  # until now the queue was filling
            counts["replay_due"] += 1
            counts["replay_done"] += rare is not None
        return rare

    def _rows_now(self) -> int:
        """Return the rows to replay in this step: ``mix.ratio_end`` makes them a line."""
        if self.ood.mix.ratio_end is None:
            return self._rows
        steps = max(1.0, self._n_steps - self._first_step)
        ratio = ratio_at(self.ood.mix, (self.trainer.global_step - self._first_step) / steps)
        return round(ratio * self.batch_size)

    def end_replay(self) -> None:
        """End the replay's workers; also called when ``fit`` raises."""
        for reader in (self.replay, self.exemplars):
            if isinstance(reader, (RareLoader, Exemplars)):
                reader.close()
        self.replay = self.exemplars = self._last_batch = None
