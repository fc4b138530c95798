"""The input of a detector: pooled features, patch features, and regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:  # imported on use: the help of the command line does without it
    from torch import Tensor

    from solo_ood.embedding.extract import Embedded

Value = TypeVar("Value")


class PatchView:
    """Some rows of a memory-mapped array, read one at a time.

    Args:
        array: (N, h, w, D').
        rows: (M,) indexes; ``None`` = all.
    """

    def __init__(self, array: np.ndarray, rows: np.ndarray | None = None) -> None:
        self.array = array
        self.rows = np.arange(len(array)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray) -> PatchView:
        return PatchView(self.array, self.rows[rows])

    def __iter__(self) -> Iterator[Tensor]:
        """Yield (h * w, D') float32 of each row, L2-normalised."""
        import torch
        import torch.nn.functional as F

        for row in self.rows:
            patches = torch.from_numpy(self.array[row].astype(np.float32))
            yield F.normalize(patches.flatten(0, 1), dim=1)


@dataclass(frozen=True)
class Feats:
    """What a detector may look at.

    Attributes:
        pooled: (N, D) float32.
        patches: of N images, or ``None``.
        regions: (N, h * w, 2) float32 in [0, 1], the shares of each patch that show what matters
            and what does not; of exemplars only, or ``None``.
    """

    pooled: np.ndarray
    patches: PatchView | None = None
    regions: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pooled)

    def __getitem__(self, rows: np.ndarray) -> Feats:
        return Feats(self.pooled[rows], None if self.patches is None else self.patches[rows])


def feats_of(embedded: Embedded) -> Feats:
    """Return what detectors may look at of a split that was embedded."""
    patches = None if embedded.patches is None else PatchView(embedded.patches, embedded.rows)
    return Feats(embedded.pooled, patches)


def joined(parts: Sequence[Feats]) -> Feats:
    """Return the features of several lists of images one after the other, as copies: of a few."""
    pooled = np.concatenate([part.pooled for part in parts])
    views = [part.patches for part in parts if part.patches is not None]
    regions = [part.regions for part in parts if part.regions is not None]
    return Feats(
        pooled,
        PatchView(np.concatenate([view.array[view.rows] for view in views])) if views else None,
        np.concatenate(regions) if regions else None,
    )


def required(value: Value | None) -> Value:
    """Return ``value``; raise if a detector was called without an input that it declares."""
    if value is None:
        raise TypeError(
            "a detector was called without the patches, exemplars or regions that it declares"
        )
    return value
