"""The backbone of a solo-learn checkpoint of either generation, from the args.json beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from solo_ood.errors import UserError, unknown_name
from solo_ood.host import installed
from solo_ood.host.narrow import add_widths
from solo_ood.host.run_args import has_args, read_args, settings_folder

# What the hosts normalise each data set with; for others, augmentations.0.mean and .std, or this.
_NORMALISATION: dict[installed.Generation, dict[str, tuple[Any, Any]]] = {
    "checkout": {
        "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        "stl10": ((0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)),
        "": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    },
    "release": {
        "cifar10": ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
        "cifar100": ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
        "stl10": ((0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)),
        "": (IMAGENET_DEFAULT_MEAN, (0.228, 0.224, 0.225)),
    },
}


@dataclass(frozen=True)
class Trained:
    """What ``args.json`` says of the network.

    Attributes:
        name: the host's name of the backbone.
        method: the host's name of the method; some have vision transformers of their own.
        cifar: whether a ResNet got the stem for 32-pixel images.
        kwargs: arguments of the backbone.
        dataset: the host's name of the data, which decides how images are normalised.
        trained_by: which generation of solo-learn wrote it.
        mean, std: per channel, what the run's own config says of data that the host has no
            numbers for.
    """

    name: str
    method: str
    cifar: bool
    kwargs: dict[str, Any]
    dataset: str | None
    trained_by: installed.Generation = "checkout"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def built_for(self) -> tuple[int, int] | None:
        """Height and width (pixels) of a transformer's position embeddings and windows."""
        side = self.kwargs.get("img_size", 224)
        return (side, side) if self.name.startswith(("vit", "swin")) else None

    @property
    def any_size(self) -> bool:
        """Whether it can be built to take images of other sizes; MAE's patch embedding cannot."""
        return self.method != "mae"

    @property
    def normalisation(self) -> tuple[Any, Any]:
        """Mean and standard deviation per channel that it was trained with."""
        known = _NORMALISATION[self.trained_by]
        if self.dataset in known:
            return known[self.dataset]
        mean, std = known[""]
        if (self.dataset or "").startswith("imagenet"):
            return mean, std
        return self.mean or mean, self.std or std

    @property
    def architecture(self) -> str:
        """A text that two networks share if they are built alike."""
        return json.dumps([self.name, self.method, self.cifar, self.kwargs], sort_keys=True)

    def create(self, **extra: Any) -> nn.Module:
        """Build the backbone as the constructor of the host's methods does, without the method.

        Raises:
            UserError: for a backbone that the installed host does not have.
        """
        kwargs = {**self.kwargs, **extra}
        known = _backbones(self.method)
        if self.name not in known:
            raise unknown_name("backbone of the installed host", self.name, known)
        if self.name.startswith("swin") and self.cifar and installed.generation() == "release":
            kwargs["window_size"] = 4
        network: Any = known[self.name](**kwargs)
        if self.name.startswith("resnet"):
            network.fc = nn.Identity()
            if self.cifar:
                network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=2, bias=False)
                network.maxpool = nn.Identity()
        return network


def read_trained(checkpoint: Path) -> Trained:
    """Return what the ``args.json`` beside ``checkpoint`` says of its network.

    Raises:
        UserError: if the file is missing or describes no backbone.
    """
    folder = settings_folder(checkpoint)
    what = f"checkpoint {checkpoint.name}"
    remedy = "For weights of another origin name the network, such as dino_vits16:PATH."
    if not has_args(folder):
        raise UserError(
            what, expected="solo-learn's args.json beside it", got="none", remedy=remedy
        )
    try:
        args = read_args(folder)
        if "encoder" in args:  # release 1.0.2
            name, given = args["encoder"], args.get("backbone_args")
        else:
            name, given = args["backbone"]["name"], args["backbone"].get("kwargs")
        kwargs = dict(given or {})
        data = (args.get("config") or args).get("data") or {}
        dataset = args.get("dataset") or data.get("dataset")
        cifar = kwargs.pop("cifar", dataset in ("cifar10", "cifar100"))
        by: installed.Generation = "release" if "encoder" in args else "checkout"
        mean, std = _normalisation_in_args(args.get("config") or args)
        return Trained(name, args["method"], cifar, kwargs, dataset, by, mean, std)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        got = error.got if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(
            what,
            expected="an args.json with method and backbone (or encoder)",
            got=got,
            remedy=remedy,
        ) from error


def _normalisation_in_args(
    config: Any,
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return mean and standard deviation of the first crops' pipeline, ``None`` if not given."""
    pipelines = config.get("augmentations") or []
    first = pipelines[0] if isinstance(pipelines, list) and pipelines else {}
    mean, std = (first.get(key) for key in ("mean", "std"))
    return mean and tuple(map(float, mean)), std and tuple(map(float, std))


def _backbones(method: str) -> dict[str, Callable[..., nn.Module]]:
    add_widths()
    if installed.generation() == "checkout":
        from solo.methods.base import BaseMethod

        return {name: partial(make, method) for name, make in BaseMethod._BACKBONES.items()}
    from solo.utils import backbones
    from torchvision.models import resnet18, resnet50

    transformers = {k: v for k, v in vars(backbones).items() if k.startswith(("vit_", "swin_"))}
    return {"resnet18": resnet18, "resnet50": resnet50, **transformers}
