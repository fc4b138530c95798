"""A network's features in eval mode, and whether they differ from those in train mode."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


def differs_in_eval_mode(net: nn.Module) -> bool:
    """Whether ``net`` computes other features in train mode: BatchNorm, dropout, drop path."""
    return any(
        isinstance(module, _BatchNorm)
        or (isinstance(module, _DropoutNd) and module.p > 0)
        or bool(getattr(module, "drop_prob", None))  # timm's DropPath
        for module in net.modules()
    )


def eval_feats(net: nn.Module, crops: Sequence[Tensor]) -> list[Tensor]:
    """Return the features (B, D) that ``net`` gives each crop (B, C, H, W) in eval mode."""
    was_training = net.training
    net.eval()
    with torch.no_grad():
        feats = [net(crop) for crop in crops]
    net.train(was_training)
    return feats
