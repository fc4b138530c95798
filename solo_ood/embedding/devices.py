"""The Trainer that embeds, and a check of its devices."""

from __future__ import annotations

import logging
import warnings

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from solo_ood.embedding.options import ExtractConfig
from solo_ood.errors import UserError


def check_devices(cfg: ExtractConfig) -> None:
    """Raise ``UserError`` for an accelerator or devices that are not there."""
    prediction_trainer(cfg)


def is_first_process() -> bool:
    """Whether this process is the only one, or the one that says and writes what all have found."""
    return getattr(rank_zero_only, "rank", 0) == 0


def prediction_trainer(cfg: ExtractConfig, *callbacks: Callback) -> Trainer:
    """Return a Trainer that predicts and writes nothing of its own, see ``check_devices``."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*predict returned None.*|.*srun.*|.*LeafSpec.*")
    try:
        return Trainer(
            accelerator=cfg.accelerator,
            devices=cfg.devices,
            num_nodes=cfg.num_nodes,
            callbacks=list(callbacks),
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
    except (MisconfigurationException, ImportError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip("!. ")
        raise UserError(
            "--accelerator, --devices",
            expected="what there is on this machine",
            got=f"{cfg.accelerator} and {cfg.devices}: {reason}",
            remedy="Leave them out: the default takes what there is.",
        ) from error
