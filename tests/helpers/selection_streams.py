"""A small selector and the streams that the selection tests feed it."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from solo_ood.selection.selector import RareSelector
from solo_ood.settings.schema import parse

D, B = 8, 8
BASE = {
    "scorer": {"name": "knn", "n_reference": 64, "min_samples": 16, "k": 1},
    "threshold": {"name": "fixed", "n": 32, "percentile": 0.9},
    "queue": {"capacity": 64, "max_replays": None, "release": 0.5},
}


def make(dim: int = D, **blocks: Any) -> RareSelector:
    return RareSelector(parse(OmegaConf.merge(BASE, blocks)), dim, num_classes=2)


def common(n: int, seed: int = 0) -> Tensor:
    """(n, D) features in a cone around the all-ones direction; ``-common`` is as odd as can be."""
    return 1 + 0.2 * torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def step(
    selector: RareSelector, indexes: list[int], feats: Tensor, n_replayed: int = 0, **processes: Any
) -> None:
    targets = (torch.tensor(indexes) % 16 == 0).long()  # class 1 is rare
    selector.step(torch.tensor(indexes), selector.embed([feats]), targets, n_replayed, **processes)


def warm(**blocks: Any) -> RareSelector:
    """A selector that has judged some steps and queued nothing but indexes below 80."""
    selector = make(**blocks)
    for t in range(10):
        step(selector, list(range(B * t, B * t + B)), common(B, seed=t))
    selector.judge_pending()
    return selector
