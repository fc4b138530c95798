"""How a run ends: with its workers, with a status that says what happened, not without work."""

from __future__ import annotations

import signal
import sys
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from solo_ood.errors import UserError


class TellOfSigterm(Callback):
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
    """End the workers of the replay when ``fit`` raises; nobody tells the module itself."""

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        module.end_replay()


class RequireSteps(Callback):
    """Raise at the end of a run that trained nothing, which Lightning takes for a success.

    One that is resumed after its last epoch has trained before and ends well.
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
