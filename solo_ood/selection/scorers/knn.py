"""Distance to the k-th nearest of the newest stream samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import Self

from solo_ood.selection.ring import UNNUMBERED, Ring
from solo_ood.selection.scorers.base import Scorer


class KNNScorer(Scorer):
    """Cosine distance to the k-th nearest neighbour, in [0, 2].

    Sun et al., 2022, arXiv:2204.06507.

    ``s(x) = 1 - cos(x, r_k(x))`` with ``r_k(x)`` the k-th most similar row of the reference. Unlike
    the paper, the reference is not the training set but the newest ``n_reference`` samples of a
    stream, since the features of a network in training age. Rows of the same sample are left out
    where the indexes are given: small data meet their own earlier embeddings, and a replay that of
    its fresh row.

    Args:
        dim: D, the feature size.
        n_reference: N, rows remembered.
        k: which neighbour; ``None`` = max(2, 1 % of the rows held).
        min_samples: rows to learn before ``ready``.
        normalize: keep ``True``; otherwise the score is minus the k-th largest dot product, plus 1.
    """

    def __init__(
        self,
        dim: int,
        n_reference: int = 1024,
        k: int | None = None,
        min_samples: int = 256,
        normalize: bool = True,
    ) -> None:
        super().__init__(dim, min_samples, normalize)
        self.k = k
        self.reference = Ring(n_reference, dim, numbered=True)

    def reset(self) -> Self:
        rows = self.reference.rows
        self.reference = Ring(*rows.shape, numbered=True).to(rows.device)
        self.n_fed = 0
        return self

    def drop_changed_indexes(self, same_sample: Callable[[int], bool]) -> None:
        numbers = self.reference.numbers
        gone = [number != UNNUMBERED and not same_sample(number) for number in numbers.tolist()]
        numbers.masked_fill_(torch.tensor(gone, device=numbers.device), UNNUMBERED)

    def _learn(self, feats: Tensor, targets: Tensor | None, indexes: Tensor | None) -> None:
        self.reference.push(feats, indexes)

    def _score(self, feats: Tensor, targets: Tensor | None, indexes: Tensor | None) -> Tensor:
        rows, filled = self.reference.rows, self.reference.filled
        others = filled.expand(len(feats), -1)  # (B, N)
        if indexes is not None:
            others = others & (indexes[:, None] != self.reference.numbers)
        # Slots never written are NaN in their own columns only.
        similarity = (feats @ rows.T).masked_fill(~others, float("-inf"))
        if self.k is not None:
            kth = similarity.topk(self.k, dim=1).values[:, -1]
        else:
            largest = similarity.topk(max(2, len(rows) // 100), dim=1).values
            # 1 % of the rows held, which only the device knows: gather instead of an index.
            rank = (filled.sum() // 100).clamp(min=2) - 1
            kth = largest.gather(1, rank.expand(len(feats), 1)).squeeze(1)
        # Fewer than k rows of others (not finite, its own): NaN instead of a high score.
        return 1 - kth.masked_fill(kth.isneginf(), float("nan"))
