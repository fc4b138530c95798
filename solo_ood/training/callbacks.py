"""Callbacks: refuse runs without enough samples or steps, end the workers, set the exit status."""

from __future__ import annotations

import math
import signal
import sys
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from solo_ood.errors import UserError
from solo_ood.settings.schema import first_step
from solo_ood.training.enough_samples import check_neighbours, check_samples


class RequireSamples(Callback):
    """Raise before the first step if the run cannot flag anything, however it was started.

    `solo_ood.training.preflight` raises earlier for runs that Hydra starts.
    """

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        selector, ood, loader = module.selector, module.ood, trainer.train_dataloader
        if selector is None or getattr(trainer, "fast_dev_run", False):
            return
        dataset: Any = getattr(loader, "dataset", None)
        if hasattr(dataset, "__len__"):
            check_neighbours(ood, len(dataset))
        try:
            steps = float(trainer.estimated_stepping_batches)
        except MisconfigurationException:  # gradients accumulated by epoch
            return
        # Resumed, it may have come far enough, or to its end. -1 and Inf: unknown.
        if selector.counts["judged"] or not trainer.global_step < steps < math.inf:
            return
        first = max(first_step(ood, steps), trainer.global_step)
        batches = steps * trainer.accumulate_grad_batches
        if trainer.max_epochs not in (None, -1):
            batches = min(batches, trainer.num_training_batches * trainer.max_epochs)
        rows = (getattr(loader, "batch_size", None) or module.batch_size) * trainer.world_size
        fresh = int(batches - first * trainer.accumulate_grad_batches) * rows
        check_samples(ood, fresh + selector.scorer.n_fed, rows, batches)


class SigtermExitStatus(Callback):
    """End a run that SIGTERM stopped with the status 143, as the signal itself would.

    Lightning ends the running step and then the process, with status 0: for a scheduler or a shell
    script, a run that is complete.
    """

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException):
            if trainer.is_global_zero:  # not logged: Hydra may have turned the loggers off
                print(
                    f"Stopped by SIGTERM in epoch {trainer.current_epoch}, step "
                    f"{trainer.global_step}. Go on from the newest checkpoint with "
                    "auto_resume.enabled=True.",
                    file=sys.stderr,
                )
            exception.code = 128 + signal.SIGTERM


class EndReplay(Callback):
    """End the replay's workers when ``fit`` raises, which Lightning does not tell the module."""

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        module.end_replay()


class RequireSteps(Callback):
    """Raise at the end of a run that trained nothing, which Lightning takes for a success.

    A run that is resumed after its last epoch has trained before, and is accepted.
    """

    def on_fit_end(self, trainer: Trainer, module: Any) -> None:
        if trainer.global_step == 0:
            batches = trainer.num_training_batches
            raise UserError(
                "training",
                expected="at least 1 optimizer step",
                got=f"none ({batches} batches an epoch, max_epochs={trainer.max_epochs}, "
                f"max_steps={trainer.max_steps})",
                remedy="Give more data or a smaller batch, or let the run last longer.",
            )
