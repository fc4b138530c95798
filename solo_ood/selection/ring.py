"""The newest N rows of a stream in fixed-shape tensors, without host-device synchronisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

UNNUMBERED = torch.iinfo(torch.int64).min  # no dataset index, nor a mark made of one


class Ring(nn.Module):
    """Keep the newest ``size`` finite rows of a stream.

    Rows that hold NaN or Inf are skipped on the device itself: no shape depends on how many there
    are, so nothing has to be read back.

    Attributes:
        rows: (size, *shape) float32; slots never written hold NaN.
        n_seen: () int64, finite rows pushed so far.
        numbers: (size,) int64, what the rows were pushed with; only of a ``numbered`` ring.
    """

    rows: Tensor
    n_seen: Tensor
    numbers: Tensor

    def __init__(self, size: int, *shape: int, numbered: bool = False) -> None:
        super().__init__()
        # float32 by name: in true half precision Lightning makes bfloat16 or float16 the default.
        rows = torch.full((size, *shape), float("nan"), dtype=torch.float32)
        self.register_buffer("rows", rows)
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.int64))
        self.numbered = numbered
        if numbered:  # not a column of the rows: float32 does not hold a large index
            self.register_buffer("numbers", torch.full((size,), UNNUMBERED, dtype=torch.int64))

    @property
    def filled(self) -> Tensor:
        """(size,) bool, the slots that hold a row."""
        slots = torch.arange(len(self.rows), device=self.rows.device)
        return slots < self.n_seen

    def push(self, rows: Tensor, numbers: Tensor | None = None) -> None:
        """Append ``rows`` (B, *shape), oldest first; only the last ``size`` of them remain.

        ``numbers`` (B,) int64 are kept beside them by a ``numbered`` ring.
        """
        if numbers is None and self.numbered:
            numbers = torch.full((len(rows),), UNNUMBERED, dtype=torch.int64, device=rows.device)
        size = len(self.rows)
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size].detach().to(self.rows.dtype)
            finite = chunk.isfinite().unsqueeze(-1).flatten(1).all(dim=1)  # (B,)
            order = torch.argsort(~finite, stable=True)  # finite rows first, in stream order
            shape = (-1,) + (1,) * (chunk.ndim - 1)
            slots = (self.n_seen + torch.arange(len(chunk), device=chunk.device)) % size
            self.rows[slots] = torch.where(
                finite[order].reshape(shape), chunk[order], self.rows[slots]
            )
            if self.numbered and numbers is not None:
                own = numbers[start : start + size][order]
                self.numbers[slots] = torch.where(finite[order], own, self.numbers[slots])
            self.n_seen += finite.sum()
