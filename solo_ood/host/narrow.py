"""ResNet-18 of any width, by ``backbone.kwargs.width``: for studies of many runs on CPUs.

The hosts' only one is 64 channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn

from solo_ood.errors import UserError
from solo_ood.host import installed

_WIDENED: set[Callable[..., nn.Module]] = set()  # constructors that take ``width``


def with_widths(plain: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Return a constructor of ResNet-18 that also takes ``width``, the channels of the first stage.

    Without it, it is ``plain``. The stages have 1, 2, 4 and 8 times as many channels; the stem is
    three convolutions of 3 x 3 pixels (ResNet-D; He et al., 2019, arXiv:1812.01187).
    """

    @wraps(plain)
    def resnet18(*args: Any, width: int | None = None, **kwargs: Any) -> nn.Module:
        if width is None:
            return plain(*args, **kwargs)
        if not isinstance(width, int) or width not in range(2, 513, 2):
            raise UserError(
                "backbone.kwargs.width",
                expected="an even number from 2 to 512",
                got=width,
                remedy="Set it to 16, say, or leave it out.",
            )
        import timm

        network: Any = timm.create_model(
            "resnet18", channels=[width * times for times in (1, 2, 4, 8)], stem_type="deep",
            stem_width=width // 2, num_classes=0,
        )  # fmt: skip
        network.inplanes = network.num_features  # where the hosts look for D
        return network

    _WIDENED.add(resnet18)
    return resnet18


def add_widths() -> None:
    """Let the host's ResNet-18 take ``width``; idempotent."""
    if installed.generation() == "checkout":
        from solo.methods.base import BaseMethod

        table, name = BaseMethod._BACKBONES, "resnet18"
    else:  # imported by its constructor when that is called
        from torchvision import models

        table, name = vars(models), "resnet18"
    if table[name] not in _WIDENED:
        table[name] = with_widths(table[name])
