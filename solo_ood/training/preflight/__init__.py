"""Check a run's config before any work: settings, data, schedule, and our own block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from solo_ood.errors import UserError
from solo_ood.files.output import check_writable
from solo_ood.settings.schema import parse
from solo_ood.training.loggers import check_logger
from solo_ood.training.plugin import NAME
from solo_ood.training.preflight.data import (
    accept_flat_folder,
    check_data,
    expand_home,
    read_exemplars,
)
from solo_ood.training.preflight.settings import (
    check_place_of_block,
    check_settings,
    name_devices,
)
from solo_ood.training.preflight.steps import check_steps


def check(cfg: DictConfig) -> None:
    """Raise ``UserError`` for what would end the run later, or train nothing."""
    if OmegaConf.is_missing(cfg, "pretrained_feature_extractor"):
        raise UserError(
            "pretrained_feature_extractor",
            expected="the checkpoint to evaluate",
            got="nothing",
            remedy="Set it: pretrained_feature_extractor=\"'CKPT'\".",
        )
    check_settings(cfg)
    check_data(cfg)
    if OmegaConf.select(cfg, "checkpoint.enabled") and cfg.checkpoint.get("dir"):
        check_writable(Path(cfg.checkpoint.dir), "checkpoint.dir")
    check_logger(cfg)
    ood = None
    if cfg.get("method") == NAME:
        check_place_of_block(cfg)
        batch_size = OmegaConf.select(cfg, "optimizer.batch_size")
        ood = parse(OmegaConf.select(cfg, "method_kwargs.ood"), batch_size)
    check_steps(cfg, ood)


def fill_in_paths(cfg: DictConfig) -> None:
    """Fill in what the config leaves open: home folders, lists in files, devices, no labels."""
    expand_home(cfg)
    read_exemplars(cfg)
    name_devices(cfg)
    accept_flat_folder(cfg)


class Preflight(Callback):
    """Runs ``check`` before the task function of an unmodified host script.

    Args:
        every_method: look at the runs of the host's own methods, too, as our own configs want.
    """

    def __init__(self, every_method: bool = False) -> None:
        self._every_method = every_method

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Set what the run's config does not say; later it belongs to the task function."""
        # Raised anywhere in the run, one line instead of a trace is what Hydra prints of it.
        if self._is_ours(config):
            UserError.__bases__ = (ValueError, CompactHydraException)
            _exit_on_user_error(fill_in_paths, config)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if self._is_ours(config):
            _exit_on_user_error(check, config)

    def _is_ours(self, config: DictConfig) -> bool:
        return self._every_method or OmegaConf.select(config, "method") == NAME


def _exit_on_user_error(step: Any, config: DictConfig) -> None:
    try:
        step(config)
    except InterpolationResolutionError as error:
        # OmegaConf keeps of a UserError in a resolver of ours only the text.
        first = str(error).splitlines()[0]
        raise SystemExit(f"Error: {first.rpartition('resolving interpolation: ')[2]}") from None
    except UserError as error:
        # Hydra turns an Exception of a callback into a warning and goes on.
        raise SystemExit(f"Error: {error}") from None
