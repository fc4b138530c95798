"""The scorers of the training method on a fit split that is there at once: equal, and faster.

In a stream each batch is checked and merged without waiting for the device. Here a few passes over
all rows do, nearly all of them matrix products, in memory that does not grow with the rows scored.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from solo_ood.detection.feats import Feats, required
from solo_ood.selection.scorers import RandomFreshScorer
from solo_ood.selection.scorers.base import LONGEST, normalised_or_nan
from solo_ood.settings.schema import ScorerConfig

_ROWS = 4096  # that are scored at a time
_CELLS = 2**23  # similarities that are held at a time: 32 MB
Score = Callable[[Feats, Feats | None], np.ndarray]


def random(feats: Feats, seed: int) -> Score:
    """Return ``RandomFreshScorer``."""
    scorer = RandomFreshScorer(feats.pooled.shape[1], min_samples=0, seed=seed)
    return lambda test, exemplars: scorer.ood_score(torch.from_numpy(test.pooled)).numpy()


def knn(feats: Feats, seed: int) -> Score:
    """Return ``KNNScorer`` with all fit samples as its reference."""
    reference = _directions(feats)
    k = max(2, len(reference) // 100)

    def score(test: Feats, exemplars: Feats | None) -> np.ndarray:
        if k > len(reference):
            return np.full(len(test), np.nan, dtype=np.float32)
        parts = torch.from_numpy(test.pooled).split(_ROWS)
        queries = (normalised_or_nan(part, True) for part in parts)
        return np.concatenate([1 - kth_similarity(part, reference, k) for part in queries])

    return score


def kth_similarity(queries: Tensor, reference: Tensor, k: int) -> np.ndarray:
    """Return (N,) float32, the k-th largest dot product of each query with the reference.

    Exact: a block of similarities is one matrix product, of which NumPy then selects. That takes a
    third of the time of ``topk``, which sorts what it finds, too. All blocks are computed in the
    same memory.

    Args:
        queries: (N, D) float32; a row with NaN gives NaN.
        reference: (M, D) float32, all finite.
        k: in [1, M].
    """
    count, columns = len(reference), reference.T
    rows = max(1, _CELLS // count)
    block = torch.empty(min(rows, len(queries)), count)
    found = np.empty(len(queries), dtype=np.float32)
    for start in range(0, len(queries), rows):
        part = queries[start : start + rows]
        similarity = torch.mm(part, columns, out=block[: len(part)]).numpy()
        similarity.partition(count - k, axis=1)
        found[start : start + len(part)] = similarity[:, count - k]
    return found


def mahalanobis(feats: Feats, seed: int) -> Score:
    """Return ``MahalanobisScorer``: its formula and default."""
    shrinkage = ScorerConfig.shrinkage
    mean, factor = _moments(feats, 1 - shrinkage, shrinkage / feats.pooled.shape[1])

    def score(test: Feats, exemplars: Feats | None) -> np.ndarray:
        scores = []
        for part in torch.from_numpy(test.pooled).split(_ROWS):
            centred = (normalised_or_nan(part, True) - mean).T
            whitened = torch.linalg.solve_triangular(factor, centred, upper=False)
            scores.append(whitened.square().sum(dim=0))
        return torch.cat(scores).numpy()

    return score


def exemplar(feats: Feats, seed: int) -> Score:
    """Return ``ExemplarScorer``: its formula and default; scoring is one product of each row."""
    mean, factor = _moments(feats, 1.0, ScorerConfig.ridge)

    def score(test: Feats, exemplars: Feats | None) -> np.ndarray:
        offset = _directions(required(exemplars)).mean(dim=0) - mean
        direction = torch.cholesky_solve(offset[:, None], factor)[:, 0]
        rows = torch.from_numpy(test.pooled)
        norms = torch.linalg.vector_norm(rows, dim=1)
        scores = (rows @ direction) / norms.clamp(min=1e-12) - mean @ direction
        return scores.masked_fill(~(norms < LONGEST), float("nan")).numpy()

    return score


def _directions(feats: Feats) -> Tensor:
    """Return the rows of length 1, without those that are not finite."""
    rows = normalised_or_nan(torch.from_numpy(feats.pooled), True)
    finite = rows[:, :1].isfinite().squeeze(1)  # a row that is unusable is NaN in all columns
    return rows if finite.all() else rows[finite]


def _moments(feats: Feats, weight: float, ridge: float) -> tuple[Tensor, Tensor]:
    """Return the mean (D,) and the lower Cholesky factor (D, D) of ``w Sigma + r tr(Sigma) I``.

    The factor is NaN, and so are all scores, where there is none.
    """
    rows = _directions(feats)
    mean = rows.mean(dim=0)
    rows -= mean  # a copy of our own
    covariance = rows.T @ rows / len(rows)
    added = ridge * covariance.diagonal().sum() * torch.eye(len(mean))
    factor, info = torch.linalg.cholesky_ex(weight * covariance + added)
    return mean, torch.where(info == 0, factor, float("nan"))


SCORERS = {"random": random, "knn": knn, "mahalanobis": mahalanobis, "exemplar": exemplar}
