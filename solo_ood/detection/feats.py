"""The input of a detector: pooled features, patch features, and regions."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

_CELLS = 2**21  # numbers of patches that are read at a time: 8 MB

if TYPE_CHECKING:  # imported on use: the help of the command line does without it
    from torch import Tensor

    from solo_ood.embedding.extract import Embedded

Value = TypeVar("Value")


class PatchView:
    """Some rows of a memory-mapped array, read a few at a time.

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

    def blocks(self) -> Iterator[Tensor]:
        """Yield (B, h * w, D') float32 of consecutive rows, as stored: not normalised.

        The next block is written over this one. What was read of a file does not stay in this
        process' memory, however large it is.
        """
        import torch

        height, width, dim = self.array.shape[1:]
        count = max(1, _CELLS // (height * width * dim))
        block = torch.empty(min(count, len(self)), height * width, dim)
        for start in range(0, len(self), count):
            rows = self.rows[start : start + count]
            follow = rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all()
            read = self.array[rows[0] : rows[-1] + 1] if follow else self.array[rows]
            part = block[: len(rows)]
            part.copy_(torch.from_numpy(read).flatten(1, 2))
            yield part
            _forget_pages(self.array)


def _forget_pages(array: np.ndarray) -> None:
    """Give back the memory of a mapped file; the system keeps its pages as long as it likes."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


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
