"""The networks of a solo-learn method, and the crops that they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from solo_ood.errors import UserError
from solo_ood.host.installed import generation


def teacher(model: Any) -> Any:
    """Return the momentum network without its head."""
    return model.momentum_backbone if generation() == "checkout" else model.momentum_encoder


def student(model: Any) -> Any:
    """Return the trained network without its head."""
    return model.backbone if generation() == "checkout" else model.encoder


def check_crops(net: Any, sizes: Sequence[int]) -> None:
    """Raise ``UserError`` if the backbone cannot take an RGB crop of one of the ``sizes`` (pixels).

    Args:
        net: the backbone.
        sizes: of the global crops first, then of the local ones.
    """
    import torch

    from solo_ood.replay.eval_mode import eval_feats

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
