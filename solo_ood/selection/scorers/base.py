"""What every streaming scorer has in common: the verbs, the checks, the warm-up count."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from solo_ood.errors import UserError

_LARGEST = torch.finfo(torch.float32).max
LONGEST = 1e15  # of a feature: what float32 can square and sum over a million samples


def normalised_or_nan(feats: Tensor, normalize: bool) -> Tensor:
    """Return ``feats`` (..., D) as float32, L2-normalised on request; unusable rows become NaN.

    Useless are those with NaN or Inf, and those longer than ``LONGEST``: one of them would turn
    the moments of a whole stream into Inf, and its direction into 0.
    """
    feats = feats.detach().float()
    norm = feats.norm(dim=-1, keepdim=True)
    feats = torch.where(norm < LONGEST, feats, float("nan"))
    return feats / norm.clamp(min=1e-12) if normalize else feats


class Scorer(nn.Module, ABC):
    """A streaming out-of-distribution scorer. **Higher score = more OOD = rarer.**

    ``partial_fit`` learns, ``ood_score`` scores and never changes the state. Rows with NaN or Inf,
    or longer than 1e15, are never learnt and score NaN, which no threshold flags.

    Args:
        dim: D, the feature size.
        min_samples: rows to learn before ``ready``.
        normalize: L2-normalise the features first.
    """

    def __init__(self, dim: int, min_samples: int, normalize: bool = True) -> None:
        super().__init__()
        self.dim = dim
        self.min_samples = min_samples
        self.normalize = normalize
        # A plain int: whether the scorer is ready must not be read from the device in a step.
        self.n_fed = 0

    @property
    def ready(self) -> bool:
        """Whether enough rows were learnt for ``ood_score``."""
        return self.n_fed >= self.min_samples

    def partial_fit(
        self, feats: Tensor, targets: Tensor | None = None, indexes: Tensor | None = None
    ) -> Self:
        """Learn ``feats`` (B, D).

        Args:
            feats: (B, D).
            targets: (B,) int64 labels, which only the oracle needs.
            indexes: (B,) int64 dataset indexes, by which ``knn`` recognises a sample.
        """
        with torch.no_grad(), torch.autocast(feats.device.type, enabled=False):
            self._learn(self._prepare(feats), targets, indexes)
        self.n_fed += len(feats)
        return self

    def fit(
        self, feats: Tensor, targets: Tensor | None = None, indexes: Tensor | None = None
    ) -> Self:
        """``reset``, then ``partial_fit``."""
        return self.reset().partial_fit(feats, targets, indexes)

    def ood_score(
        self, feats: Tensor, targets: Tensor | None = None, indexes: Tensor | None = None
    ) -> Tensor:
        """Score ``feats`` (B, D): (B,) float32, higher = more OOD.

        Args:
            feats: (B, D).
            targets: (B,) int64 labels, which only the oracle needs.
            indexes: (B,) int64 dataset indexes, which ``random`` and the oracle need; ``knn``
                leaves earlier embeddings of the same sample out of its reference.

        Raises:
            UserError: before ``ready``, or without the targets or indexes that a control needs.
        """
        if not self.ready:
            raise UserError(
                f"{type(self).__name__}.ood_score",
                expected=f"at least {self.min_samples} learnt samples",
                got=self.n_fed,
                remedy="Call partial_fit with more samples first (see `ready`).",
            )
        with torch.no_grad(), torch.autocast(feats.device.type, enabled=False):
            prepared = self._prepare(feats)
            # A distance beyond float32 becomes its largest number, which thresholds can learn.
            scores = self._score(prepared, targets, indexes).float().clamp(max=_LARGEST)
            finite = prepared.isfinite().all(dim=1)
            return torch.where(finite, scores, torch.full_like(scores, float("nan")))

    def drop_changed_indexes(self, same_sample: Callable[[int], bool]) -> None:
        """Forget the rows whose index no longer names the same sample."""

    @abstractmethod
    def reset(self) -> Self:
        """Forget everything learnt."""

    @abstractmethod
    def _learn(self, feats: Tensor, targets: Tensor | None, indexes: Tensor | None) -> None:
        """Learn checked float32 ``feats`` (B, D)."""

    @abstractmethod
    def _score(self, feats: Tensor, targets: Tensor | None, indexes: Tensor | None) -> Tensor:
        """Score checked float32 ``feats`` (B, D): (B,)."""

    def _prepare(self, feats: Tensor) -> Tensor:
        if feats.ndim != 2 or feats.shape[1] != self.dim:
            raise UserError(
                "features",
                expected=f"shape (N, {self.dim})",
                got=tuple(feats.shape),
                remedy="Build the scorer with the feature size of this backbone.",
            )
        return normalised_or_nan(feats, self.normalize)

    def get_extra_state(self) -> dict[str, Any]:
        return {"n_fed": self.n_fed}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.n_fed = state["n_fed"]
