"""Mahalanobis distance to the running mean of the stream."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from solo_ood.scorers.base import Scorer


class MahalanobisScorer(Scorer):
    r"""Squared Mahalanobis distance to one Gaussian (Lee et al., 2018, arXiv:1807.03888).

    .. math:: s(x) = (x - \mu)^T \Sigma^{-1} (x - \mu), \quad
              \Sigma = (1 - a)\,S + a\,\tfrac{\operatorname{tr} S}{D}\,I

    with one class instead of the paper's one per label (there are none in pre-training) and the
    covariance shrunk with a fixed weight a. Batch moments are merged (Chan et al., 1979), never
    sums of squares, so any chunking of a stream gives the same moments while ``window`` is
    ``None``.

    Args:
        dim: D, the feature size.
        window: effective number of samples remembered: older ones fade out exponentially once
            more were seen. ``None`` = all samples count the same.
        shrinkage: a in [0, 1].
        min_samples: rows to learn before ``ready``.
        normalize: L2-normalise the features first.
        refresh: updates between two Cholesky factorisations, D^3/3 operations each.
    """

    n: Tensor  # () float32, (effective) number of samples
    mean: Tensor  # (D,)
    scatter: Tensor  # (D, D), sum of outer products of the centred samples
    factor: Tensor  # (D, D), lower Cholesky factor of the shrunk covariance
    center: Tensor  # (D,), the mean that belongs to ``factor``

    def __init__(
        self,
        dim: int,
        window: int | None = None,
        shrinkage: float = 0.1,
        min_samples: int = 256,
        normalize: bool = True,
        refresh: int = 1,
    ) -> None:
        super().__init__(dim, min_samples, normalize)
        self.window = window
        self.shrinkage = shrinkage
        self.refresh = refresh
        self.register_buffer("n", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scatter", torch.zeros(dim, dim))
        self.register_buffer("factor", torch.full((dim, dim), float("nan")))
        self.register_buffer("center", torch.full((dim,), float("nan")))
        self._updates = 0

    def reset(self) -> Self:
        for buffer, empty in ((self.n, 0), (self.mean, 0), (self.scatter, 0)):
            buffer.fill_(empty)
        self.factor.fill_(float("nan"))
        self.center.fill_(float("nan"))
        self.n_fed = self._updates = 0
        return self

    @property
    def covariance(self) -> Tensor:
        """(D, D), the shrunk covariance of the samples seen."""
        sample = self.scatter / self.n.clamp(min=1)
        scale = sample.diagonal().mean()
        eye = torch.eye(self.dim, device=sample.device)
        return (1 - self.shrinkage) * sample + self.shrinkage * scale * eye

    def _learn(self, feats: Tensor, targets: Tensor | None) -> None:
        keep = feats.isfinite().all(dim=1, keepdim=True).float()  # (B, 1)
        feats = torch.where(keep.bool(), feats, torch.zeros_like(feats))
        n_batch = keep.sum()
        mean = feats.sum(dim=0) / n_batch.clamp(min=1)
        centred = (feats - mean) * keep
        delta = (mean - self.mean) * (n_batch > 0)
        total = (self.n + n_batch).clamp(min=1)
        self.scatter += centred.T @ centred
        self.scatter += torch.outer(delta, delta) * (self.n * n_batch / total)
        self.mean += delta * (n_batch / total)
        self.n += n_batch
        if self.window is not None:
            fade = (self.window / self.n.clamp(min=1)).clamp(max=1)
            self.n *= fade
            self.scatter *= fade
        self._updates += 1
        due = self._updates % self.refresh == 0
        if due or (self.n_fed < self.min_samples <= self.n_fed + len(feats)):
            # cholesky_ex: the checking variant would read the result back to the host.
            factor, info = torch.linalg.cholesky_ex(self.covariance)
            # Without a factor (singular: shrinkage 0, few samples) the scores must be NaN.
            self.factor.copy_(torch.where(info == 0, factor, float("nan")))
            self.center.copy_(self.mean)

    def _score(self, feats: Tensor, targets: Tensor | None) -> Tensor:
        centred = (feats - self.center).T  # (D, B)
        whitened = torch.linalg.solve_triangular(self.factor, centred, upper=False)
        return whitened.square().sum(dim=0)

    def get_extra_state(self) -> dict[str, Any]:
        return {**super().get_extra_state(), "updates": self._updates}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        self._updates = state["updates"]
