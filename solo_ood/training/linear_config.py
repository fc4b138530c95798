"""What ``dino_ood_linear.yaml`` takes from a checkpoint's run and from the data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from solo_ood.errors import UserError, unknown_name
from solo_ood.files.text import user_path
from solo_ood.host.run_folder import RunFiles, find_run

BATCH_SIZE = 64


def run_setting(checkpoint: Any, key: str) -> Any:
    """Return a setting of the run that ``checkpoint`` (a .ckpt, or its folder) belongs to.

    Raises:
        UserError: for a missing checkpoint or ``args.json``, or a run that has no such thing: never
            a default, which would evaluate on data that are not the run's.
    """
    if key not in _SETTINGS:
        raise unknown_name("key of ${solo_ood.run}", key, _SETTINGS)
    if checkpoint is None or not user_path(str(checkpoint)).exists():
        raise UserError(
            "pretrained_feature_extractor",
            expected="a checkpoint with its args.json beside it",
            got=f"no file {checkpoint}",
            remedy="Set it: pretrained_feature_extractor=\"'CKPT'\".",
        )
    return _SETTINGS[key](find_run(user_path(str(checkpoint))))


def batch_size(train_path: Any, dataset: Any, devices: Any) -> int:
    """Return 64, or how many images each process has of a smaller folder.

    The host drops a last batch that is not full, which would be all of such a folder.
    """
    from solo_ood.host.arguments import num_processes
    from solo_ood.training.preflight.data import count_samples

    data = {"train_path": train_path, "dataset": dataset}
    cfg = OmegaConf.create({"data": data, "devices": devices})
    processes = num_processes(cfg)
    samples = count_samples(cfg, at_most=BATCH_SIZE * processes)
    return min(BATCH_SIZE, math.ceil(samples / processes)) if samples else BATCH_SIZE


def _train(run: RunFiles) -> str:
    return _folder(run, "train_path", run.reference_folder)


def _val(run: RunFiles) -> str:
    return _folder(run, "val_path", run.image_folder("val_path"))


def _tail(run: RunFiles) -> str | None:
    folder = None if run.setting("data.no_labels") else run.image_folder("train_path")
    return None if folder is None else str(folder)


def _folder(run: RunFiles, key: str, folder: Path | None) -> str:
    """Return the run's folder of labelled images, or what the host makes of a data set's name."""
    given = run.setting(f"data.{key}")
    if folder is None and (given is None or run.setting("data.no_labels")):
        raise UserError(
            f"data.{key}",
            expected="labelled images",
            got="a run without labels" if given is not None else f"a run without data.{key}",
            remedy=f"Name them: data.{key}=DIR (an ImageFolder).",
        )
    return str(folder or given)


def _network(run: RunFiles) -> Any:
    from solo_ood.host.backbones import read_trained

    return read_trained(run.checkpoint)


_SETTINGS: dict[str, Any] = {
    "train_path": _train,
    "val_path": _val,
    "tail_path": _tail,
    "dataset": lambda run: run.setting("data.dataset", "custom"),
    "format": lambda run: "h5" if run.setting("data.format") == "h5" else "image_folder",
    "crop_size": lambda run: run.crop_size,
    "mean": lambda run: list(_network(run).normalisation[0]),
    "std": lambda run: list(_network(run).normalisation[1]),
    "backbone": lambda run: _network(run).name,
    "backbone_kwargs": lambda run: _network(run).kwargs,
    "method": lambda run: run.setting("method"),
    "name": lambda run: run.setting("name", "run"),
}
