"""A Lightning callback that writes down what a run really did; it changes nothing.

Lightning itself loads it into every Trainer, by the entry point that ``install`` writes beside a
copy of this file in a folder for PYTHONPATH: so scripts are observed unmodified, and also in the
processes that Lightning starts for DDP. The copy is on its own: no import of this project here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

NAME = "matrix_observer"
FOLDER = "MATRIX_OBSERVED"  # the variable that names the folder to write to


def make() -> list[Callback]:
    """What the entry point calls."""
    return [Observer()] if FOLDER in os.environ else []


def install(folder: Path) -> Path:
    """Write the importable copy and its entry point into ``folder``; return it."""
    info = folder / f"{NAME}-0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    shutil.copy(__file__, folder / f"{NAME}.py")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 0\n")
    group = "lightning.pytorch.callbacks_factory"
    (info / "entry_points.txt").write_text(f"[{group}]\n{NAME} = {NAME}:make\n")
    return folder


class Observer(Callback):
    """Where training starts, how many crops the loss gets, and the state a checkpoint carries."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.crops: set[float] = set()
        self.seen = {"first_epoch": trainer.current_epoch, "first_step": trainer.global_step}
        loss = getattr(pl_module, "dino_loss_func", None)
        if loss is not None:
            loss.register_forward_pre_hook(self._count)

    def _count(self, loss: Any, inputs: tuple[Any, ...]) -> None:
        student, teacher = inputs  # rows: crops x batch size; the teacher has the 2 global crops
        self.crops.add(2 * len(student) / len(teacher))

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        checkpoint: dict[str, Any] = {}
        pl_module.on_save_checkpoint(checkpoint)  # what the method adds to a checkpoint
        self.seen |= {
            "method": type(pl_module).__module__,
            "processes": trainer.world_size,
            "last_step": trainer.global_step,
            "crops": sorted(self.crops),
            "state": digests(checkpoint),
        }
        folder = Path(os.environ[FOLDER])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{trainer.global_rank}.json").write_text(json.dumps(self.seen))


def digests(value: Any, name: str = "") -> dict[str, str]:
    """Return a digest of every tensor and plain value in nested dicts and lists, by its path."""
    if isinstance(value, dict):
        parts = list(value.items())
    elif isinstance(value, (list, tuple)):
        parts = list(enumerate(value))
    else:
        data = value.cpu().numpy().tobytes() if hasattr(value, "numpy") else repr(value).encode()
        return {name: hashlib.sha256(data).hexdigest()[:16]}
    return {k: v for key, part in parts for k, v in digests(part, f"{name}/{key}").items()}
