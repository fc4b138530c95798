"""Replay of rare samples for a method with a teacher, whatever its loss. Wiring only."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from solo_ood.config import OODConfig, first_step
from solo_ood.crop_store import CropStore
from solo_ood.errors import UserError
from solo_ood.exemplars import Exemplars
from solo_ood.following import FollowsLoader
from solo_ood.fresh_rows import FreshRowsEvaluated
from solo_ood.mixing import drawn_order, mix
from solo_ood.reading import name_files_in_errors
from solo_ood.replay import with_fresh_rows
from solo_ood.rng import rng_state, set_rng_state
from solo_ood.scorers import ExemplarScorer
from solo_ood.selection import STATE_KEY, STATE_VERSION, RareSelector, starving
from solo_ood.teacher import depends_on_mode, eval_feats


class RareReplay(FreshRowsEvaluated, FollowsLoader):
    """Mixin that finds the rare samples of a momentum method's stream and replays them.

    It goes before the method among the bases, whose own step it calls with mixed batches::

        class MyMethod(RareReplay, DINO):
            def __init__(self, cfg):
                super().__init__(cfg)
                self.set_up_ood(ood_config)

    Batches are ``[indexes (B,), [crops (B, C, H, W), ...], targets (B,)]``, global crops first.
    An index ``-1 - i`` marks a fresh row in the place of the sample i, which could not be read.
    """

    def set_up_ood(self, ood: OODConfig) -> None:
        """Take the checked configuration; to be called at the end of the constructor."""
        self.ood = ood
        self.selector: RareSelector | None = None
        self.exemplars: Exemplars | None = None
        self.replay = self._loader = self._dataset = None  # of `FollowsLoader`
        self._look_now = False
        self._n_numbered = 0  # rows that `CropStore.number` has numbered
        self._teacher_feats: list[Tensor] = []
        self._last_batch: Sequence[Any] | None = None
        self._rng: dict[str, Any] | None = None  # of the checkpoint that is being resumed
        if ood.enabled:
            self.selector = RareSelector(ood, self.features_dim, self.num_classes)
            self.hide_replays_from_classifiers()

    @property
    def teacher(self) -> nn.Module:
        """The momentum network without its head."""
        return self.momentum_backbone

    # -- set-up ------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Let the errors of the stream name the file."""
        super().setup(stage)
        if self.selector is not None:
            # No later: asked for the number of steps, by a schedule, the Trainer starts the workers
            # that hold the dataset.
            source = getattr(self.trainer.fit_loop, "_data_source", None)
            name_files_in_errors(getattr(getattr(source, "instance", None), "dataset", None))

    def configure_optimizers(self) -> Any:
        """Go on with the random numbers of the checkpoint, if there is one; the method's own.

        It is the last hook before anybody iterates over the data: a scheduler that counts steps
        lets Lightning do that in here, for the length of the loader.
        """
        self._restore_rng()
        return super().configure_optimizers()

    def on_train_start(self) -> None:
        """Set the replay up: its loader, the exemplars, which classes the logs count as rare.

        Raises:
            UserError: if the data cannot be replayed (no indexes, no labels for the oracle).
        """
        super().on_train_start()
        if self.selector is None:
            return
        trainer = self.trainer
        # Inside an epoch a resumable loader is where it was, but Lightning has drawn a seed for its
        # workers since. Its older versions iterate over the data again after this hook.
        if not trainer.is_last_batch or not hasattr(trainer.fit_loop, "is_resuming"):
            self._restore_rng()
        self._rng = None
        self._first_step = first_step(self.ood, self._total_steps())
        self._replay_from(trainer.train_dataloader, self.selector)
        self.selector.to(self.device)
        # Without BatchNorm and the like, the features of the step itself are those of eval mode.
        self._eval_pass = self.ood.scorer.feats == "eval" and depends_on_mode(self.teacher)
        # solo-learn starts at 0: resumed with gradients to accumulate, it would update the teacher
        # after the first batch, before an optimizer step.
        self.last_step = trainer.global_step

    # -- the step ----------------------------------------------------------------------------------

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
            loss = super().training_step(batch, batch_idx)
            self._teacher_feats.clear()  # of a transformer they keep all its tokens alive
            return loss
        rare = self._rare_rows(batch)
        n_rare, mode, queue = 0, self.ood.mix.mode, self.selector.queue
        if isinstance(self.replay, CropStore):
            batch = self.replay.number(batch, self._n_numbered)
            self._n_numbered += len(batch[0])
        if rare is not None:
            unreadable, fresh = rare[0] < 0, batch  # known on the host
            rare = self.trainer.strategy.batch_to_device(rare, self.device)
            n_rare, order = len(rare[0]), None
            if mode == "replace":
                order = drawn_order(len(fresh[0]), n_rare, self.selector.seed, queue.step)
            batch = mix(batch, rare, mode, order)
            if unreadable.any():
                batch = with_fresh_rows(batch, fresh, unreadable, order)
        with self.replays_hidden(batch[2], n_rare):
            loss = super().training_step(batch, batch_idx)
        self._select(batch, n_rare)
        self._teacher_feats.clear()
        return loss

    def _shared_step_momentum(self, X: Tensor, targets: Tensor) -> dict[str, Any]:
        out = super()._shared_step_momentum(X, targets)
        if self.training and self.selector is not None:  # validation passes here, too
            self._teacher_feats.append(out["feats"].detach())
        return out

    def _select(self, batch: Sequence[Any], n_rare: int) -> None:
        assert self.selector is not None  # for the type checker; training_step made sure
        indexes, crops, targets = batch
        feats = self._teacher_feats
        if self._eval_pass:
            feats = self._eval_feats(crops[: self.num_large_crops])
        selector = self.selector
        most = self._most
        if most is not None and self.ood.mix.mode == "append":
            most += n_rare
        # A function of the step, so that a resumed run looks at them at the same steps.
        if self._look_now or selector.queue.step % self.ood.scorer.exemplar_every == 0:
            self._look_at_exemplars(selector)
            self._look_now = False
        selector.step(
            indexes,
            selector.embed(feats),
            targets,
            n_rare,
            gather=None if most is None else lambda x: self.all_gather(x).flatten(0, 1),
            agree=None if most is None else _first_rank_s,
            most=most,
        )
        if isinstance(self.replay, CropStore) and self._last_batch is not None:
            self.replay.keep(self._last_batch, selector.candidates)
        self._last_batch = batch if isinstance(self.replay, CropStore) else None
        if self._logs_are_read():
            # Host tensors: a device tensor would have to be copied there and waited for.
            metrics = {
                f"ood/{k}": torch.tensor(v, dtype=torch.float32)
                for k, v in selector.metrics().items()
            }
            for name, value in metrics.items():
                shown = name in ("ood/flag_rate", "ood/queue_fill")
                self.log(name, value, prog_bar=shown, batch_size=len(indexes))

    def _logs_are_read(self) -> bool:
        """Whether loggers take this step's values, or callbacks may, at the end of an epoch.

        Lightning takes up to a millisecond to note a value, more than the scoring, and forgets it
        at the next step unless it is one of every ``log_every_n_steps``.
        """
        trainer = self.trainer
        due = trainer._logger_connector.should_update_logs
        return due or trainer.is_last_batch or bool(trainer.fast_dev_run)

    def _eval_feats(self, crops: Sequence[Tensor]) -> list[Tensor]:
        """Return the teacher's features (B, D) of each crop, in eval mode."""
        if not getattr(self, "no_channel_last", True):  # the main branch converts its inputs so
            crops = [crop.to(memory_format=torch.channels_last) for crop in crops]
        return eval_feats(self.teacher, crops)

    def _look_at_exemplars(self, selector: RareSelector) -> None:
        """Embed the exemplars anew, if there are any: the teacher has changed."""
        if self.exemplars is None or not isinstance(selector.scorer, ExemplarScorer):
            return
        crops = self.exemplars.next()[: self.num_large_crops]
        # They do not come from the train loader, whose batches Lightning converts itself.
        crops = self.trainer.precision_plugin.convert_input(crops)
        crops = self.trainer.strategy.batch_to_device(crops, self.device)
        parts = zip(*(crop.split(self.batch_size) for crop in crops))
        feats = torch.cat([selector.embed(self._eval_feats(part)) for part in parts])
        if self.trainer.world_size > 1:
            feats = _first_rank_s(feats)
        if feats.isfinite().all(dim=1).any():  # otherwise the last ones stay
            selector.scorer.set_exemplars(feats)

    def on_train_end(self) -> None:
        super().on_train_end()
        self.end_replay()
        if self.selector is not None:
            self.selector.settle()
            starved = starving(self.selector.counts)
            if starved is not None and self.trainer.is_global_zero:
                warnings.warn(starved, RuntimeWarning, stacklevel=2)

    # -- checkpoints -------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the detector, the queue and the teacher's momentum to ``checkpoint``."""
        super().on_save_checkpoint(checkpoint)
        # solo-learn does not save the momentum schedule's current value.
        tau = float(self.momentum_updater.cur_tau)
        state: dict[str, Any] = {"version": STATE_VERSION, "cur_tau": tau}
        if self.selector is not None:
            state["selector"] = self.selector.state_dict()
            state["rng"] = rng_state()
            state["numbered"] = self._n_numbered
        checkpoint[STATE_KEY] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the detector and queue of ``checkpoint``; one without them is fine.

        Raises:
            UserError: if they were saved with another feature size, scorer or threshold, or by an
                incompatible version.
        """
        super().on_load_checkpoint(checkpoint)
        state = checkpoint.get(STATE_KEY, {})  # a plain DINO checkpoint has none
        version = state.get("version", 1)  # the first ones did not say it
        # Without a detector the first layout is that of today.
        if version != STATE_VERSION and (version != 1 or "selector" in state):
            raise UserError(
                f"checkpoint, {STATE_KEY!r}",
                expected=f"layout version {STATE_VERSION}",
                got=version,
                remedy="Resume with the version of this package that wrote it, or delete the "
                f"key {STATE_KEY!r} from the checkpoint to start its detector afresh.",
            )
        if "cur_tau" in state:
            self.momentum_updater.cur_tau = state["cur_tau"]
        if self.selector is not None and "selector" in state:
            self.selector.load_state_dict(state["selector"])
            self._dataset = None  # the queue is of the data that this checkpoint saw
            self._n_numbered = state["numbered"]
            # Not for a model that is only evaluated, or trained afresh from here with a new seed.
            trainer = self._trainer
            resumes = trainer is not None and trainer.state.fn == "fit"
            self._rng = state.get("rng") if resumes else None

    def _restore_rng(self) -> None:
        """Draw the shuffles and augmentations that the run would have drawn without a stop.

        Otherwise every resume draws those of the first epoch again. A checkpoint has the state of
        one process; several keep their own.
        """
        if self._rng is not None and self.trainer.world_size == 1:
            set_rng_state(self._rng)


def _first_rank_s(x: Tensor) -> Tensor:
    """Return the first process's ``x``."""
    x = x.contiguous()
    torch.distributed.broadcast(x, src=0)
    return x
