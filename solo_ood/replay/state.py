"""Checkpoint state of the replay: saving and restoring."""

from __future__ import annotations

from typing import Any

from solo_ood.errors import UserError
from solo_ood.replay.rng import rng_state, set_rng_state
from solo_ood.replay.source import ReplaySource
from solo_ood.selection.selector import STATE_KEY, STATE_VERSION


class ReplayState(ReplaySource):
    """Mixin that saves the detector, the queue, the random numbers and the teacher's momentum."""

    _n_assigned: int  # rows that `CropStore.assign_indexes` has numbered
    _rng: dict[str, Any] | None  # of the checkpoint that is being resumed

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the detector, the queue and the teacher's momentum to ``checkpoint``."""
        super().on_save_checkpoint(checkpoint)
        # solo-learn does not save the momentum schedule's current value.
        tau = float(self.momentum_updater.cur_tau)
        state: dict[str, Any] = {"version": STATE_VERSION, "cur_tau": tau}
        if self.selector is not None:
            state["selector"] = self.selector.state_dict()
            state["rng"] = rng_state()
            state["numbered"] = self._n_assigned
        checkpoint[STATE_KEY] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the detector and queue of ``checkpoint``; one without them is accepted.

        Raises:
            UserError: if they were saved with another feature size, scorer or threshold, or by an
                incompatible version.
        """
        super().on_load_checkpoint(checkpoint)
        state = checkpoint.get(STATE_KEY, {})  # a plain DINO checkpoint has none
        version = state.get("version", 1)  # version 1 does not record it
        # Without a detector version 1 has the layout of STATE_VERSION.
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
            saved = state["selector"]["settings"].get("scorer.exemplars")
            self._look_now = self.ood.scorer.exemplars != saved
            self._dataset = None  # the queue is of the data that this checkpoint saw
            self._n_assigned = state["numbered"]
            # Not for a model that is only evaluated, or trained from these weights with a new seed.
            trainer = self._trainer
            resumes = trainer is not None and trainer.state.fn == "fit"
            self._rng = state.get("rng") if resumes else None

    def _restore_rng(self) -> None:
        """Restore the random state: shuffles and augmentations are those of an uninterrupted run.

        Otherwise every resume would draw those of the first epoch again. A checkpoint has the state
        of one process; several keep their own.
        """
        if self._rng is not None and self.trainer.world_size == 1:
            set_rng_state(self._rng)
