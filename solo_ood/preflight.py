"""Check a run's config before any work: paths, schedule, and our own block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from solo_ood.config import parse
from solo_ood.data.folders import check_training_folder
from solo_ood.errors import UserError


def check(cfg: DictConfig) -> None:
    """Raise ``UserError`` for a missing path, a bad schedule or a bad ``method_kwargs.ood``."""
    dataset, form = OmegaConf.select(cfg, "data.dataset"), OmegaConf.select(cfg, "data.format")
    for key in ("data.train_path", "data.val_path"):
        path = OmegaConf.select(cfg, key)
        if dataset in ("cifar10", "cifar100", "stl10"):
            continue  # the host downloads them
        if key == "data.val_path" and path is None:
            continue  # no validation
        if path is None or not (Path(path).is_dir() or (form == "h5" and Path(path).is_file())):
            raise UserError(
                key,
                expected="an existing folder",
                got=path,
                remedy=f"Set it: {key}=PATH (an ImageFolder for data.dataset=custom).",
            )
        if dataset in ("custom", "imagenet", "imagenet100") and form != "h5":
            no_labels = bool(OmegaConf.select(cfg, "data.no_labels"))
            if key == "data.train_path" or not no_labels:  # then the host validates on nothing
                check_training_folder(Path(path), key, no_labels)
    warmup = OmegaConf.select(cfg, "method_kwargs.warmup_teacher_temperature_epochs") or 0
    if warmup > (cfg.get("max_epochs") or warmup):
        raise UserError(
            "method_kwargs.warmup_teacher_temperature_epochs",
            expected=f"at most max_epochs = {cfg.max_epochs}",
            got=warmup,
            remedy="Lower it together with max_epochs.",
        )
    if cfg.get("method") == "dino_ood":
        parse(
            OmegaConf.select(cfg, "method_kwargs.ood"),
            OmegaConf.select(cfg, "optimizer.batch_size"),
        )


class Preflight(Callback):
    """Runs ``check`` before the task function of an unmodified host script."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            check(config)
        except UserError as error:
            # Hydra turns an Exception of a callback into a warning and goes on.
            raise SystemExit(f"Error: {error}") from None
