"""The setting ``logger``: Lightning's own loggers by name, beside the one that the host makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from solo_ood.errors import UserError
from solo_ood.host.arguments import logger_names


def check_logger(cfg: Any) -> None:
    """Raise ``UserError`` for a ``logger`` that this run could not have."""
    if not logger_names(cfg):
        return
    from solo_ood.host import installed

    if cfg.get("method") is None or (
        cfg.method != "dino_ood" and installed.generation() == "checkout"
    ):
        raise UserError(
            "logger",
            expected="none: the host's script for this method or evaluation makes its own",
            got=cfg.logger,
            remedy="Leave it out; only pre-training with dino_ood takes one.",
        )


def with_loggers(loggers: Sequence[Any], names: Sequence[str], root: Path) -> list[Any]:
    """Return ``loggers`` and those of ``names`` that are not among them.

    The new ones write into the folder of the first, or, if that is on a server, below ``root``.
    """
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    found, local = list(loggers), (CSVLogger, TensorBoardLogger)
    for name in names:
        kind: Any = CSVLogger if name == "csv" else TensorBoardLogger
        if any(isinstance(logger, kind) for logger in found):
            continue
        first: Any = next((logger for logger in found if isinstance(logger, local)), None)
        if first is None:
            found.append(kind(root))
        else:  # before the first one: a CSVLogger warns of files that were there before it
            place = found.index(first) + (name != "csv")
            found.insert(place, kind(first.save_dir, name=first.name, version=first.version))
    return found
