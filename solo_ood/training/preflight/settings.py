"""Checks settings of the host and of Lightning: values, names, available devices."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from solo_ood.errors import UserError, nearest, short_repr, unknown_name
from solo_ood.files.output import check_writable
from solo_ood.host import installed
from solo_ood.training.preflight.values import check_values

LONGEST_NAME = 200  # bytes: a file's name has 255, and the host adds the epoch to it


def check_settings(cfg: DictConfig) -> None:
    """Raise ``UserError`` for a setting that the host or Lightning would stumble over."""
    check_values(cfg)
    _check_name(cfg)
    if not _is_set(cfg, "pretrained_feature_extractor"):
        for key, names in installed.choices().items():
            value = OmegaConf.select(cfg, key)
            if value is not None and value not in names:
                raise unknown_name(key, value, names)
        _check_channels(cfg)
    _check_places(cfg)
    _check_devices(cfg)
    _check_trainer(cfg)


def name_devices(cfg: DictConfig) -> None:
    """Write a number of devices as a checkout takes it, which counts them by ``len``.

    GPUs become a list. On the CPU Lightning wants a number, and takes the text of one.
    """
    number = cfg.get("devices")
    if installed.generation() != "checkout" or type(number) is not int or number < 1:
        return
    import torch

    auto = cfg.get("accelerator") in (None, "auto") and torch.cuda.is_available()
    gpus = auto or cfg.get("accelerator") in ("gpu", "cuda")
    OmegaConf.update(cfg, "devices", list(range(number)) if gpus else str(number), merge=False)


def check_place_of_block(cfg: DictConfig) -> None:
    """Raise ``UserError`` for a block of ours that nobody would read, so that defaults would hold.

    The host takes any key.
    """
    places = [("", cfg.get("ood"), "ood")]
    places += [
        ("method_kwargs.", value, key)
        for key, value in (cfg.get("method_kwargs") or {}).items()
        if key != "ood" and nearest(str(key), ["ood"])
    ]
    for path, value, key in places:
        if OmegaConf.is_dict(value):
            raise UserError(
                "settings of dino_ood",
                expected="method_kwargs.ood",
                got=f"a block {path}{key}",
                remedy="Write it as `ood:` below `method_kwargs:`.",
            )


def _is_set(cfg: DictConfig, key: str) -> bool:
    return OmegaConf.select(cfg, key, throw_on_missing=False) is not None


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


def _check_places(cfg: DictConfig) -> None:
    """What the run reads first is there, and where it writes, it can."""
    resumed, folder = cfg.get("resume_from_checkpoint"), OmegaConf.select(cfg, "checkpoint.dir")
    if resumed is not None and "://" not in str(resumed) and not Path(str(resumed)).exists():
        raise UserError(
            "resume_from_checkpoint",
            expected="a checkpoint",
            got=f"no file {resumed}",
            remedy="Name a .ckpt file; with auto_resume.enabled=True the newest one is found.",
        )
    if isinstance(folder, str) and OmegaConf.select(cfg, "checkpoint.enabled"):
        check_writable(Path(folder), "checkpoint.dir")


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
    kwargs = {key: value for key, value in given.items() if key in known}
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
