"""The one place that knows which solo-learn is installed, and how its generations differ.

``release`` is version 1.0.2 of the package index (keyword arguments, ``encoder``), ``checkout`` the
git repository's main branch (one config, ``backbone``).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal

from solo_ood.config import OODConfig, parse
from solo_ood.errors import UserError
from solo_ood.loggers import logger_names

Generation = Literal["release", "checkout"]

_REMEDY = (
    "Run `python tools/install_host.py` in a checkout of solo-ood, or install a checkout of "
    "solo-learn's main branch."
)


@dataclass
class Setup:
    """What the constructor of DINO gets, and what ``dino_ood`` takes for itself."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    ood: OODConfig
    crop_sizes: list[int]  # of the global crops first
    loggers: list[str]  # to be added to the host's


@lru_cache(maxsize=1)
def generation() -> Generation:
    """Return which generation of solo-learn is installed.

    Raises:
        UserError: if there is none, it does not import, or its interface is unknown.
    """
    if find_spec("solo") is None:
        raise UserError(
            "solo-learn", expected="an installed host", got="no package `solo`", remedy=_REMEDY
        )
    try:
        from solo.methods.dino import DINO
    except ImportError as error:
        raise UserError(
            f"solo-learn {_version()}",
            expected="a host that imports with the installed torch and lightning",
            got=f"{type(error).__name__}: {error}",
            remedy=_REMEDY,
        ) from error
    parameters = list(inspect.signature(DINO.__init__).parameters)
    if parameters[1:] == ["cfg"] and find_spec("solo.backbones"):
        return "checkout"
    if "proj_hidden_dim" in parameters and find_spec("solo.utils.backbones"):
        return "release"
    raise UserError(
        f"solo-learn {_version()}",
        expected="DINO(cfg) of the main branch or DINO(**kwargs) of 1.0.2",
        got=f"DINO({', '.join(parameters[1:])})",
        remedy=_REMEDY,
    )


def check() -> None:
    """Raise ``RuntimeError`` with a remedy unless a known solo-learn is installed."""
    generation()


def require_release() -> None:
    """Raise ``RuntimeError`` unless the host is the release, which the scripts here drive."""
    if generation() != "release":
        raise UserError(
            "these scripts",
            expected="solo-learn 1.0.2",
            got="a checkout of its main branch",
            remedy="Use the checkout's own scripts: main_pretrain.py --config-name dino_ood.",
        )


def _version() -> str:
    try:
        return version("solo-learn")
    except PackageNotFoundError:
        return "(not installed as a package)"


def prepare(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Setup:
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


def teacher(model: Any) -> Any:
    """Return the momentum network without its head."""
    return model.momentum_backbone if generation() == "checkout" else model.momentum_encoder


def student(model: Any) -> Any:
    """Return the trained network without its head."""
    return model.backbone if generation() == "checkout" else model.encoder


def has_multicrop_dino() -> bool:
    """Whether the host's own DINO computes its loss over local crops, as newer main branches do."""
    from solo.methods.dino import DINO

    return "multicrop_forward" in vars(DINO)


def eval_transform(size: int, normalise: tuple[Any, Any]) -> Any:
    """Return solo-learn's centre crop of 224 of 256 pixels, at ``size`` pixels.

    Args:
        size: height and width.
        normalise: mean and standard deviation per channel.
    """
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.Resize(round(size * 256 / 224)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(*normalise),
        ]
    )


def choices() -> dict[str, list[str]]:
    """Return the names that the host knows, by the config's key."""
    from solo.methods import METHODS
    from solo.methods.base import BaseMethod

    release = generation() == "release"
    return {
        "method": list(METHODS),
        "backbone.name": list(
            # Each generation has one of the two; the type checker sees the one that is installed.
            BaseMethod._SUPPORTED_ENCODERS if release else BaseMethod._BACKBONES  # type: ignore
        ),
        "optimizer.name": ["sgd", "lars", "adam", "adamw"],
        "scheduler.name": ["warmup_cosine", "cosine", "step", "none"],
        "data.dataset": ["cifar10", "cifar100", "stl10", "imagenet", "imagenet100", "custom"],
        "data.format": ["image_folder", "dali", "h5"],
    }


def check_crops(net: Any, sizes: Sequence[int]) -> None:
    """Raise ``UserError`` if the backbone cannot take an RGB crop of one of the ``sizes`` (pixels).

    Args:
        net: the backbone.
        sizes: of the global crops first, then of the local ones.
    """
    import torch

    from solo_ood.teacher import eval_feats

    was_training = net.training
    for size in sizes:
        try:
            eval_feats(net, [torch.zeros(1, 3, size, size)])
        except Exception as error:  # whatever the backbone raises is the reason
            what, got = "augmentations, local crop size", f"{size} pixels"
            if size == sizes[0]:  # not a matter of multi-crop: channels, patches, windows
                what, got = "backbone", f"{type(net).__name__}"
            raise UserError(
                what,
                expected=f"a size that the backbone {type(net).__name__} can take"
                if size != sizes[0]
                else f"one that takes RGB crops of {size} pixels",
                got=f"{got} ({str(error).splitlines()[0]})",
                remedy="Use another crop_size, or backbone.kwargs that allow it.",
            ) from error
        finally:
            net.train(was_training)
