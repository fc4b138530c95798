"""Running mean and covariance of a stream, and what the scorers that solve with them share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from solo_ood.selection.scorers.base import Scorer


class Moments(nn.Module):
    """Mean and covariance of the finite rows of a stream, without host-device synchronisation.

    Batch moments are merged (Chan et al., 1979), never sums of squares, so any chunking of a stream
    gives the same moments while ``n_reference`` is ``None``.

    Args:
        dim: D, the feature size.
        n_reference: effective number of samples remembered: older ones fade out exponentially once
            more were seen. ``None`` = all samples count the same.
    """

    n: Tensor  # () float32, (effective) number of samples
    mean: Tensor  # (D,)
    scatter: Tensor  # (D, D), sum of outer products of the centred samples

    def __init__(self, dim: int, n_reference: int | None = None) -> None:
        super().__init__()
        self.n_reference = n_reference
        # float32 by name: in true half precision Lightning makes bfloat16 or float16 the default.
        for name, shape in (("n", ()), ("mean", (dim,)), ("scatter", (dim, dim))):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float32))

    @property
    def covariance(self) -> Tensor:
        """(D, D), divided by the number of samples."""
        return self.scatter / self.n.clamp(min=1)

    def reset(self) -> None:
        """Forget all samples."""
        for buffer in self.buffers():
            buffer.zero_()

    def update(self, feats: Tensor) -> None:
        """Take in ``feats`` (B, D) float32; rows with NaN or Inf are left out."""
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
        if self.n_reference is not None:
            fade = (self.n_reference / self.n.clamp(min=1)).clamp(max=1)
            self.n *= fade
            self.scatter *= fade


class MomentsScorer(Scorer):
    """A scorer that solves with ``w Sigma + r tr(Sigma) I`` of its stream.

    Args:
        dim: D, the feature size.
        n_reference: effective number of samples remembered, see ``Moments``.
        weight: w, of the covariance.
        ridge: r, of the scaled identity.
        min_samples: rows to learn before ``ready``.
        normalize: L2-normalise the features first.
        refresh: updates between two Cholesky factorisations, D^3/3 operations each.
    """

    factor: Tensor  # (D, D), lower Cholesky factor; all NaN while there is none
    center: Tensor  # (D,), the mean that belongs to ``factor``

    def __init__(
        self,
        dim: int,
        n_reference: int | None,
        weight: float,
        ridge: float,
        min_samples: int,
        normalize: bool,
        refresh: int,
    ) -> None:
        super().__init__(dim, min_samples, normalize)
        self.weight, self.ridge, self.refresh = weight, ridge, refresh
        self.moments = Moments(dim, n_reference)
        for name, shape in (("factor", (dim, dim)), ("center", (dim,))):
            self.register_buffer(name, torch.full(shape, float("nan"), dtype=torch.float32))
        self._updates = 0

    @property
    def covariance(self) -> Tensor:
        """(D, D), the regularised covariance of the samples seen."""
        sample = self.moments.covariance
        eye = torch.eye(self.dim, dtype=sample.dtype, device=sample.device)
        return self.weight * sample + self.ridge * sample.diagonal().sum() * eye

    def reset(self) -> Self:
        self.moments.reset()
        self.factor.fill_(float("nan"))
        self.center.fill_(float("nan"))
        self.n_fed = self._updates = 0
        return self

    def _learn(self, feats: Tensor, targets: Tensor | None, indexes: Tensor | None) -> None:
        self.moments.update(feats)
        self._updates += 1
        due = self._updates % self.refresh == 0
        if due or (self.n_fed < self.min_samples <= self.n_fed + len(feats)):
            # cholesky_ex: the checking variant would read the result back to the host.
            factor, info = torch.linalg.cholesky_ex(self.covariance)
            # Without a factor (singular: no ridge, few samples) the scores must be NaN.
            self.factor.copy_(torch.where(info == 0, factor, float("nan")))
            self.center.copy_(self.moments.mean)
            self._on_new_factor()

    def _on_new_factor(self) -> None:
        """Take a new ``factor`` and ``center`` into account."""

    def get_extra_state(self) -> dict[str, Any]:
        return {**super().get_extra_state(), "updates": self._updates}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        self._updates = state["updates"]
