"""What solo-learn gets of a run's settings, and what ``dino_ood`` takes of them for itself."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig, OmegaConf

from solo_ood.errors import UserError, short_repr, unknown_name
from solo_ood.host.installed import generation
from solo_ood.settings.schema import OODConfig, parse

LOGGERS = ("csv", "tensorboard")


def logger_names(cfg: Any) -> list[str]:
    """Return the loggers that the setting ``logger`` of a run's config names, one or a list.

    Raises:
        UserError: for another value, an unknown name, or one whose package is not installed.
    """
    given = cfg.get("logger")
    if given is None or given is True:  # the host's own
        return []
    names = [given] if isinstance(given, str) else given
    wanted = f"{', '.join(LOGGERS)}, or a list of them"
    if not isinstance(names, Sequence) or isinstance(given, Mapping):
        raise UserError(
            "logger",
            expected=wanted,
            got=short_repr(given),
            remedy="Name one, such as +logger=tensorboard, or leave the key out.",
        )
    for name in names:
        if name == "wandb":
            raise UserError("logger", expected=wanted, got=name, remedy="Set wandb.enabled=True.")
        if name not in LOGGERS:
            raise unknown_name("logger", name, LOGGERS)
    if "tensorboard" in names and not (find_spec("tensorboard") or find_spec("tensorboardX")):
        raise UserError(
            "logger=tensorboard",
            expected="the package tensorboard",
            got="none",
            remedy="Install it (pip install tensorboard), or use logger=csv.",
        )
    return sorted(set(names))


def num_processes(cfg: DictConfig) -> int:
    """Return how many processes ``cfg.devices`` and ``cfg.num_nodes`` mean, as Lightning does."""
    devices = cfg.get("devices", 1)
    if OmegaConf.is_list(devices):
        count = len(devices)
    elif isinstance(devices, str) and "," in devices:  # "0,1" or "0,"
        count = len([d for d in devices.split(",") if d.strip()])
    elif devices in (None, "auto", -1, "-1"):
        import torch

        count = 1 if cfg.get("accelerator") == "cpu" else max(1, torch.cuda.device_count())
    else:
        count = int(devices)
    return count * (cfg.get("num_nodes") or 1)


@dataclass
class Setup:
    """What the constructor of DINO gets, and what ``dino_ood`` takes for itself."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    ood: OODConfig
    crop_sizes: list[int]  # of the global crops first
    loggers: list[str]  # to be added to the host's


def split_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Setup:
    """Take our block out of the constructor's arguments and make the backbone fit the local crops.

    Raises:
        UserError: for a bad ``method_kwargs.ood`` block or a backbone argument that forbids the
            local crops.
    """
    if generation() == "checkout":
        cfg = args[0] if args else kwargs["cfg"]
        method_kwargs = cfg.get("method_kwargs") or {}
        ood = parse(method_kwargs.get("ood"), cfg.optimizer.batch_size)
        _check_global_crops(cfg.data.num_large_crops)
        sizes = _distinct([pipeline.crop_size for pipeline in cfg.get("augmentations") or []])
        extra = _crop_kwargs(cfg.backbone.name, sizes, cfg.backbone.get("kwargs") or {})
        if extra:
            cfg.backbone.kwargs = {**(cfg.backbone.get("kwargs") or {}), **extra}
        names = logger_names(cfg)
        if not (cfg.get("wandb") or {}).get("enabled"):
            names = ["csv", *names]  # the script's own is TensorBoard's where that is installed
        return Setup((cfg,), {}, ood, sizes, names)
    kwargs = dict(kwargs)
    ood = parse(kwargs.pop("ood", None), kwargs["batch_size"])
    _check_global_crops(kwargs["num_large_crops"])
    sizes = _distinct(kwargs.get("crop_size") or [])
    extra = _crop_kwargs(kwargs["encoder"], sizes, kwargs["backbone_args"])
    kwargs["backbone_args"] = {**kwargs["backbone_args"], **extra}
    return Setup(args, kwargs, ood, sizes, [])  # its script makes them


@contextmanager
def refusals_named() -> Iterator[None]:
    """Raise a ``UserError`` for what the host's constructor raises of settings that are not its.

    It asserts without a word, and hands on to others what it was given.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = (str(error).splitlines() or [""])[0] or f"`{last.line}` in {last.name}"
        raise UserError(
            "settings of the method",
            expected="what solo-learn's DINO and its backbone take",
            got=f"{type(error).__name__}: {reason}",
            remedy="Correct backbone.kwargs, method_kwargs or momentum.",
        ) from error


def _check_global_crops(number: int) -> None:
    if number != 2:
        raise UserError(
            "augmentations",
            expected="2 global crops (those of the first pipeline's crop_size)",
            got=number,
            remedy="Give the local crops another crop_size, and the global ones num_crops: 2.",
        )


def _distinct(sizes: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(sizes))


def _crop_kwargs(backbone: str, sizes: list[int], given: Any) -> dict[str, bool]:
    """Return what timm's transformers need to take crops of more than one size."""
    needed = {"vit": ("dynamic_img_size", True), "swin": ("strict_img_size", False)}
    family = backbone.split("_")[0]
    if len(sizes) < 2 or family not in needed:
        return {}
    key, value = needed[family]
    if given.get(key, value) != value:
        raise UserError(
            f"backbone.kwargs.{key}",
            expected=f"{value} for {backbone} with crops of {sizes} pixels",
            got=given[key],
            remedy="Remove the key, or give all crops the same size.",
        )
    return {key: value}
