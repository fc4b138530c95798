"""Diverse admission: a flagged sample enters the queue only far from what is queued already."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from solo_ood.selection.rare_queue import RareQueue

_BITS = 14  # of a feature's largest component


class DiverseAdmission:
    """Turn away flagged samples whose features are near to those of a queued one.

    Otherwise the near copies of one scene, such as the frames of one drive, fill the queue. Samples
    are admitted one after the other, as they were flagged (Gonzalez, 1985, takes the farthest one
    first). Features are those of a sample's newest look, fresh or replayed, on the host: 2 D bytes
    for each index that is queued or waits for its verdict at the top of an open block.

    Every process decides on its own, and all have to decide alike: components are rounded to whole
    numbers, with which sums are exact in any order, on any machine.

    Args:
        min_distance: d in (0, 2], the smallest cosine distance to every queued sample.

    Attributes:
        n_turned_away: flagged samples that did not enter, so far.
    """

    def __init__(self, min_distance: float) -> None:
        self.min_distance = min_distance
        self.n_turned_away = 0
        self._feats: dict[int, Tensor] = {}  # index -> (D,) int16

    def look(self, indexes: Tensor, feats: Tensor) -> None:
        """Take in the features (N, D) of samples, on the host.

        Rows that are not finite and those of indexes (N,) below 0 are left out.
        """
        usable = (indexes >= 0) & feats.isfinite().all(dim=1)
        for index, row in zip(indexes[usable].tolist(), whole_numbers(feats[usable])):
            self._feats[index] = row.clone()  # a view would keep all rows alive

    def admitted(self, flagged: Iterable[int], queue: RareQueue) -> list[int]:
        """Return those of the ``flagged`` indexes that may enter, in their order.

        One whose features are not known is near to nothing.
        """
        new = [index for index in dict.fromkeys(flagged) if queue.takes(index)]
        known = [index for index in new if index in self._feats]
        if not known:
            return new
        queued = [index for index in queue if index in self._feats]
        near = self._near(known, [*queued, *known])
        too_near = near[:, : len(queued)].any(dim=1)
        turned_away = set()
        for row, index in enumerate(known):
            if too_near[row]:
                turned_away.add(index)
            else:
                too_near |= near[:, len(queued) + row]
        self.n_turned_away += len(turned_away)
        return [index for index in new if index not in turned_away]

    def _near(self, some: list[int], others: list[int]) -> Tensor:
        """Return which pairs have a distance below the smallest one: (N, M) bool."""
        # float64 holds the sums: whole numbers below 2^53.
        a, b = (torch.stack([self._feats[i] for i in part]).double() for part in (some, others))
        squares = (a * a).sum(dim=1)[:, None] * (b * b).sum(dim=1)
        return a @ b.T > (1 - self.min_distance) * squares.sqrt()

    def keep(self, wanted: Iterable[int]) -> None:
        """Forget the features of all other indexes."""
        self._feats = {index: self._feats[index] for index in wanted if index in self._feats}

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python only, so that ``torch.load`` reads it in its safe mode."""
        feats = list(self._feats.values())
        return {
            "indexes": torch.tensor(list(self._feats), dtype=torch.int64),
            "feats": torch.stack(feats) if feats else torch.zeros((0, 0), dtype=torch.int16),
            "n_turned_away": self.n_turned_away,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        rows = (row.clone() for row in state["feats"])
        self._feats = dict(zip(state["indexes"].tolist(), rows))
        self.n_turned_away = state["n_turned_away"]


def whole_numbers(feats: Tensor) -> Tensor:
    """Return finite rows (N, D), each times a power of 2 and rounded: int16, the same everywhere.

    The largest component of a row is from 2^13 to 2^14; the direction stays to within 2^-14 of it.
    """
    largest = feats.double().abs().amax(dim=1).tolist()
    scales = [math.ldexp(1.0, _BITS - math.frexp(x)[1]) for x in largest]
    return (feats.double() * torch.tensor(scales, dtype=torch.float64)[:, None]).round().short()
