"""How far a sample lies from the stream in the direction of a few exemplars."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from solo_ood.errors import UserError
from solo_ood.selection.scorers.moments import MomentsScorer


class ExemplarScorer(MomentsScorer):
    """Ridge classifier of exemplars against the stream, which counts as unlabelled.

    ``s(x) = (x - mu)^T (Sigma + r tr(Sigma) I)^-1 (e - mu)`` with ``mu`` and ``Sigma`` of the
    stream and ``e`` the mean exemplar: the direction of Fisher's discriminant (1936), which
    regularised least squares finds as well. The stream holds a
    few positives, too; an unlabelled sample's score still orders like its probability of being one
    (Elkan and Noto, 2008, doi:10.1145/1401890.1401920). Unlike a distance to the stream, this finds
    rare samples that stand in its densest region.

    Args:
        dim: D, the feature size.
        n_reference: effective number of samples remembered: older ones fade out exponentially once
            more were seen. ``None`` = all samples count the same.
        ridge: r > 0, relative to the total variance; larger = nearer to the plain direction from
            the mean of the stream to that of the exemplars.
        min_samples: rows to learn before ``ready``.
        normalize: L2-normalise the features first.
        refresh: updates between two Cholesky factorisations, D^3/3 operations each.
    """

    mean_exemplar: Tensor  # (D,)
    direction: Tensor  # (D,), which the scores project on

    def __init__(
        self,
        dim: int,
        n_reference: int | None = None,
        ridge: float = 0.02,
        min_samples: int = 256,
        normalize: bool = True,
        refresh: int = 1,
    ) -> None:
        super().__init__(dim, n_reference, 1.0, ridge, min_samples, normalize, refresh)
        for name in ("mean_exemplar", "direction"):
            self.register_buffer(name, torch.full((dim,), float("nan"), dtype=torch.float32))
        # A plain int, as ``n_fed`` is.
        self.n_exemplars = 0

    @property
    def ready(self) -> bool:
        """Whether enough rows were fed and the exemplars are set."""
        return super().ready and self.n_exemplars > 0

    def set_exemplars(self, feats: Tensor) -> Self:
        """Score towards ``feats`` (E, D), 5 to 20 of them, from now on; waits for the device.

        They replace the earlier ones and outlive ``reset``. Rows with NaN or Inf are left out.

        Raises:
            UserError: for another shape, or if no row is finite.
        """
        with torch.no_grad(), torch.autocast(feats.device.type, enabled=False):
            feats = self._prepare(feats)
            finite = feats[feats.isfinite().all(dim=1)]
            if len(finite) == 0:
                raise UserError(
                    "exemplars",
                    expected="at least 1 without NaN or Inf, better 5 to 20",
                    got=f"none of {len(feats)}",
                    remedy="Give other samples, or check the network they were embedded with.",
                )
            self.mean_exemplar.copy_(finite.mean(dim=0))
            self.n_exemplars = len(finite)
            self._on_new_factor()
        return self

    def ood_score(
        self, feats: Tensor, targets: Tensor | None = None, indexes: Tensor | None = None
    ) -> Tensor:
        """Score ``feats`` (B, D): (B,) float32, higher = nearer to what the exemplars show.

        Raises:
            UserError: before ``ready``.
        """
        if self.n_exemplars == 0:
            raise UserError(
                "ExemplarScorer.ood_score",
                expected="exemplars",
                got="none",
                remedy="Call set_exemplars with the features of 5 to 20 samples first.",
            )
        return super().ood_score(feats, targets, indexes)

    def reset(self) -> Self:
        super().reset()
        self.direction.fill_(float("nan"))
        return self

    def _on_new_factor(self) -> None:
        offset = (self.mean_exemplar - self.center)[:, None]
        self.direction.copy_(torch.cholesky_solve(offset, self.factor).squeeze(1))

    def _score(self, feats: Tensor, targets: Tensor | None, indexes: Tensor | None) -> Tensor:
        return (feats - self.center) @ self.direction

    def get_extra_state(self) -> dict[str, Any]:
        return {**super().get_extra_state(), "n_exemplars": self.n_exemplars}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        self.n_exemplars = state["n_exemplars"]
