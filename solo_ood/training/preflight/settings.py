"""Checks settings of the host and of Lightning: types, ranges, names, available devices."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from typing import Any

from omegaconf import DictConfig, OmegaConf

from solo_ood.errors import UserError, short_repr, unknown_name
from solo_ood.host import installed

LONGEST_NAME = 200  # bytes: a file's name has 255, and the host adds the epoch to it

# key: (smallest value, whether null is one)
_WHOLE_NUMBERS = {
    "max_epochs": (-1, True),
    "max_steps": (-1, True),
    "num_nodes": (1, True),
    "accumulate_grad_batches": (1, True),
    "optimizer.batch_size": (1, False),
    "data.num_workers": (0, True),
    "checkpoint.frequency": (1, True),
}
_NUMBERS = ("optimizer.lr", "optimizer.weight_decay", "limit_train_batches", "limit_val_batches")


def check_settings(cfg: DictConfig) -> None:
    """Raise ``UserError`` for a setting that the host or Lightning would stumble over."""
    for key, (smallest, may_be_null) in _WHOLE_NUMBERS.items():
        value = OmegaConf.select(cfg, key)
        if value is None and (may_be_null or not _is_set(cfg, key)):
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
            expected = f"a whole number of at least {smallest}"
            raise UserError(
                key, expected=expected, got=short_repr(value), remedy=f"Set {key}=NUMBER."
            )
    for key in _NUMBERS:
        value = OmegaConf.select(cfg, key)
        if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            continue
        if not _is_number(value):  # YAML takes 1e-4 for a text; the host does not
            raise UserError(
                key, expected="a number", got=short_repr(value), remedy=f"Set {key}=NUMBER."
            )
    for key in ("data.train_path", "data.val_path"):
        value = OmegaConf.select(cfg, key)
        if value is not None and not isinstance(value, str):
            raise UserError(
                key,
                expected="a path",
                got=short_repr(value),
                remedy=f"Write {key}=./{value} for a folder of this name.",
            )
    _check_name(cfg)
    if not _is_set(cfg, "pretrained_feature_extractor"):
        for key, names in installed.choices().items():
            value = OmegaConf.select(cfg, key)
            if value is not None and value not in names:
                raise unknown_name(key, value, names)
        _check_channels(cfg)
    _check_devices(cfg)
    _check_trainer(cfg)


def _is_set(cfg: DictConfig, key: str) -> bool:
    return OmegaConf.select(cfg, key, throw_on_missing=False) is not None


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _check_name(cfg: DictConfig) -> None:
    """The name begins that of every checkpoint, so it can have no folder in it."""
    name = str(cfg.get("name", ""))
    if re.search(r"[/\\\0]", name) or len(name.encode()) > LONGEST_NAME:
        raise UserError(
            "name",
            expected=f"part of a file's name: no / or \\, at most {LONGEST_NAME} bytes",
            got=short_repr(name),
            remedy="Use another name, and checkpoint.dir for the folder.",
        )


def _check_channels(cfg: DictConfig) -> None:
    """The host's transforms give RGB images."""
    channels = OmegaConf.select(cfg, "backbone.kwargs.in_chans")
    if channels not in (None, 3):
        raise UserError(
            "backbone.kwargs.in_chans",
            expected="3: the host reads every image as RGB, grey ones too",
            got=short_repr(channels),
            remedy="Remove the key.",
        )


def _check_devices(cfg: DictConfig) -> None:
    import torch
    from lightning.pytorch.accelerators import AcceleratorRegistry

    there = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    there += ["mps"] * torch.backends.mps.is_available()
    wanted, devices = cfg.get("accelerator") or "auto", cfg.get("devices")
    known = {"auto", "gpu", *AcceleratorRegistry.available_accelerators()}
    if isinstance(wanted, str) and wanted not in known:
        raise unknown_name("accelerator", wanted, known)
    lacking = there == ["cpu"] if wanted == "gpu" else wanted in {"cuda", "mps"} - {*there}
    if lacking:
        raise UserError(
            "accelerator",
            expected=f"one that this machine has ({', '.join(there)})",
            got=wanted,
            remedy="Set accelerator=auto, or install a torch that sees the device.",
        )
    ids = OmegaConf.is_list(devices) or (isinstance(devices, str) and "," in devices)
    if ids and (wanted == "cpu" or there == ["cpu"]):
        got = list(devices) if OmegaConf.is_list(devices) else devices
        raise UserError(
            "devices",
            expected="a number of processes on the CPU, such as '1'",
            got=short_repr(got),
            remedy="This names GPUs, and the run has none. Set devices='1'.",
        )


def _check_trainer(cfg: DictConfig) -> None:
    """Let Lightning check its own settings before model and data are built."""
    from lightning.pytorch import Trainer

    given: Any = OmegaConf.to_container(cfg, resolve=False)
    known = inspect.signature(Trainer.__init__).parameters
    kwargs = {key: value for key, value in given.items() if key in known and value is not None}
    for key in ("callbacks", "plugins", "profiler"):
        kwargs.pop(key, None)
    kwargs.update(dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False))
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Trainer(**kwargs)
    except Exception as error:
        raise UserError(
            "settings of Lightning's Trainer",
            expected="what it takes on this machine",
            got=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            remedy="Correct the setting, such as devices, precision, strategy or max_time.",
        ) from error
    finally:
        log.setLevel(level)
