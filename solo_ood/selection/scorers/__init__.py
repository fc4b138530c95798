"""Streaming scorers by name. Higher score = more out-of-distribution, for every one of them."""

from __future__ import annotations

from solo_ood.errors import unknown_name
from solo_ood.selection.scorers.base import Scorer
from solo_ood.selection.scorers.controls import (
    OracleScorer,
    RandomFreshScorer,
    RandomScorer,
)
from solo_ood.selection.scorers.exemplar import ExemplarScorer
from solo_ood.selection.scorers.knn import KNNScorer
from solo_ood.selection.scorers.mahalanobis import MahalanobisScorer
from solo_ood.settings.choices import SCORERS, build
from solo_ood.settings.schema import ScorerConfig

__all__ = [
    "ExemplarScorer",
    "KNNScorer",
    "MahalanobisScorer",
    "OracleScorer",
    "RandomFreshScorer",
    "RandomScorer",
    "Scorer",
    "make_scorer",
]


def make_scorer(cfg: ScorerConfig, dim: int, num_classes: int = 1, seed: int = 0) -> Scorer:
    """Build the scorer that ``cfg.name`` names, for features of size ``dim``.

    Args:
        cfg: ``method_kwargs.ood.scorer``.
        dim: D, the feature size.
        num_classes: C, for the oracle.
        seed: for the controls.

    Raises:
        UserError: for an unknown name.
    """
    if cfg.name not in SCORERS:
        raise unknown_name("scorer", cfg.name, SCORERS)
    run = {"dim": dim, "num_classes": num_classes, "seed": seed}
    return build(SCORERS[cfg.name], {**vars(cfg), **run})
