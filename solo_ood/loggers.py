"""The setting ``logger``: Lightning's own loggers by name, beside the one that the host makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from solo_ood.errors import UserError, shown, unknown_name

NAMES = ("csv", "tensorboard")


def logger_names(cfg: Any) -> list[str]:
    """Return the loggers that the setting ``logger`` of a run's config names, one or a list.

    Raises:
        UserError: for another value, an unknown name, or one whose package is not installed.
    """
    given = cfg.get("logger")
    if given is None or given is True:  # the host's own
        return []
    names = [given] if isinstance(given, str) else given
    wanted = f"{', '.join(NAMES)}, or a list of them"
    if not isinstance(names, Sequence) or isinstance(given, Mapping):
        raise UserError(
            "logger",
            expected=wanted,
            got=shown(given),
            remedy="Name one, such as +logger=tensorboard, or leave the key out.",
        )
    for name in names:
        if name == "wandb":
            raise UserError("logger", expected=wanted, got=name, remedy="Set wandb.enabled=True.")
        if name not in NAMES:
            raise unknown_name("logger", name, NAMES)
    if "tensorboard" in names and not (find_spec("tensorboard") or find_spec("tensorboardX")):
        raise UserError(
            "logger=tensorboard",
            expected="the package tensorboard",
            got="none",
            remedy="Install it (pip install tensorboard), or use logger=csv.",
        )
    return sorted(set(names))


def check_logger(cfg: Any) -> None:
    """Raise ``UserError`` for a ``logger`` that this run could not have."""
    if not logger_names(cfg):
        return
    from solo_ood import host

    if cfg.get("method") is None or (cfg.method != "dino_ood" and host.generation() == "checkout"):
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
        if any(isinstance(one, kind) for one in found):
            continue
        first: Any = next((one for one in found if isinstance(one, local)), None)
        if first is None:
            found.append(kind(root))
        else:  # before the first one: a CSVLogger warns of files that were there before it
            place = found.index(first) + (name != "csv")
            found.insert(place, kind(first.save_dir, name=first.name, version=first.version))
    return found
