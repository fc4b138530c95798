"""Which solo-learn is installed, and how its generations differ.

``release`` is version 1.0.2 of the package index (keyword arguments, ``encoder``), ``checkout`` the
git repository's main branch (one config, ``backbone``).
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal

from solo_ood.errors import UserError

_REMEDY = (
    "Run `python tools/install_host.py` in a checkout of solo-ood, or install a checkout of "
    "solo-learn's main branch."
)
Generation = Literal["release", "checkout"]


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


def has_multicrop_dino() -> bool:
    """Whether the host's own DINO computes its loss over local crops, as newer main branches do."""
    from solo.methods.dino import DINO

    return "multicrop_forward" in vars(DINO)


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
