"""Mahalanobis distance to the running mean of the stream."""

from __future__ import annotations

import torch
from torch import Tensor

from solo_ood.selection.scorers.moments import MomentsScorer


class MahalanobisScorer(MomentsScorer):
    """Squared Mahalanobis distance to one Gaussian (Lee et al., 2018, arXiv:1807.03888).

    ``s(x) = (x - mu)^T Sigma^-1 (x - mu)`` with ``Sigma = (1 - a) S + a tr(S) / D I``,
    with one class instead of the paper's one per label (there are none in pre-training) and the
    covariance shrunk with a fixed weight a.

    Args:
        dim: D, the feature size.
        n_reference: effective number of samples remembered: older ones fade out exponentially once
            more were seen. ``None`` = all samples count the same.
        shrinkage: a in [0, 1].
        min_samples: rows to learn before ``ready``.
        normalize: L2-normalise the features first.
        refresh: updates between two Cholesky factorisations, D^3/3 operations each.
    """

    def __init__(
        self,
        dim: int,
        n_reference: int | None = None,
        shrinkage: float = 0.1,
        min_samples: int = 256,
        normalize: bool = True,
        refresh: int = 1,
    ) -> None:
        weight, ridge = 1 - shrinkage, shrinkage / dim
        super().__init__(dim, n_reference, weight, ridge, min_samples, normalize, refresh)

    def _score(self, feats: Tensor, targets: Tensor | None, indexes: Tensor | None) -> Tensor:
        centred = (feats - self.center).T  # (D, B)
        whitened = torch.linalg.solve_triangular(self.factor, centred, upper=False)
        return whitened.square().sum(dim=0)
