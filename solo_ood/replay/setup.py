"""Set-up of the replay: its parts with the model, its source of rows at the start of training."""

from __future__ import annotations

from typing import Any

from solo_ood.replay.exemplars import Exemplars
from solo_ood.replay.fresh_rows import HideReplaysFromMetrics
from solo_ood.replay.source import ReplaySource
from solo_ood.replay.state import ReplayState
from solo_ood.replay.teacher_feats import TeacherFeats
from solo_ood.replay.tolerant_dataset import name_files_in_errors
from solo_ood.selection.selector import RareSelector
from solo_ood.settings.ratio import check_steps_are_known
from solo_ood.settings.schema import OODConfig, first_step


class ReplaySetup(TeacherFeats, HideReplaysFromMetrics, ReplayState, ReplaySource):
    """Mixin that builds each part of the replay as soon as its inputs exist."""

    def set_up_ood(self, ood: OODConfig) -> None:
        """Take the checked configuration; to be called at the end of the constructor."""
        self.ood = ood
        self.selector: RareSelector | None = None
        self.exemplars: Exemplars | None = None
        self.replay = self._loader = self._dataset = None  # of `ReplaySource`
        self._look_now = False
        self._n_assigned = 0
        self._teacher_feats = []
        self._last_batch = None
        self._rng = None
        if ood.enabled:
            self.selector = RareSelector(ood, self.features_dim, self.num_classes)
            self.hide_replays_from_classifiers()

    def setup(self, stage: str) -> None:
        """Let the errors of the stream name the file."""
        super().setup(stage)
        if self.selector is not None:
            # Not later: a schedule that asks for the number of steps makes the Trainer start the
            # workers that hold the dataset.
            source = getattr(self.trainer.fit_loop, "_data_source", None)
            name_files_in_errors(getattr(getattr(source, "instance", None), "dataset", None))

    def configure_optimizers(self) -> Any:
        """Restore the random state of the checkpoint, if there is one; then build the optimizers.

        It is the last hook before the data are iterated: a scheduler that counts steps makes
        Lightning do that in here, for the length of the loader.
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
        self._n_steps = self._total_steps()
        check_steps_are_known(self.ood.mix, self._n_steps)
        self._first_step = first_step(self.ood, self._n_steps)
        self._set_source(trainer.train_dataloader, self.selector)
        self.selector.to(self.device)
        self._check_eval_mode()
        # solo-learn starts at 0: resumed with gradients to accumulate, it would update the teacher
        # after the first batch, before an optimizer step.
        self.last_step = trainer.global_step
