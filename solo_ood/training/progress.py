"""What a run shows while it trains, and its summary at the end."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Any

from lightning.pytorch import Callback, Trainer

from solo_ood.console import SECONDS_BETWEEN_LINES, hide_version, on_terminal


class Progress(Callback):
    """Loss, flag rate and queue beside the Trainer's bar; a summary when the run is complete.

    A pipe or a file gets a line every 30 s in place of the bar, which would write one for every
    step.
    """

    def __init__(self) -> None:
        self.active = False  # whether the values are shown
        self._by_lines = False
        self._said = 0.0

    def setup(self, trainer: Trainer, module: Any, stage: str) -> None:
        bar = trainer.progress_bar_callback
        self.active = bar is not None and trainer.is_global_zero
        self._by_lines = self.active and not on_terminal(sys.stdout)
        self._said = time.monotonic()
        if hasattr(bar, "get_metrics"):
            hide_version(bar)
        if bar is not None and self._by_lines:
            with suppress(NotImplementedError):  # a bar of the user's own
                bar.disable()

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._by_lines and time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            values = trainer.progress_bar_metrics
            metrics = ", ".join(f"{name} {float(value):.4g}" for name, value in values.items())
            print(
                f"epoch {trainer.current_epoch + 1}, batch {batch_idx + 1} of "
                f"{trainer.num_training_batches}: {metrics}",
                flush=True,
            )

    def on_fit_end(self, trainer: Trainer, module: Any) -> None:
        """Print the summary; the method has settled its detector in ``on_train_end``."""
        if module.selector is not None and trainer.is_global_zero:
            from solo_ood.runs.summary import detector_lines, wrapped

            steps = f"{trainer.current_epoch} epochs, {trainer.global_step} steps"
            print(
                "\n".join([steps, *map(wrapped, detector_lines(module.selector, module.ood))]),
                flush=True,
            )
