"""The newest N rows of a stream in fixed-shape tensors, without host-device synchronisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ring(nn.Module):
    """Keep the newest ``size`` finite rows of a stream.

    Rows that hold NaN or Inf are skipped on the device itself: no shape depends on how many there
    are, so nothing has to be read back.

    Attributes:
        rows: (size, *shape) float32; slots never written hold NaN.
        n_seen: () int64, finite rows pushed so far.
    """

    rows: Tensor
    n_seen: Tensor

    def __init__(self, size: int, *shape: int) -> None:
        super().__init__()
        # float32 by name: in true half precision Lightning makes bfloat16 or float16 the default.
        rows = torch.full((size, *shape), float("nan"), dtype=torch.float32)
        self.register_buffer("rows", rows)
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.int64))

    @property
    def filled(self) -> Tensor:
        """(size,) bool, the slots that hold a row."""
        slots = torch.arange(len(self.rows), device=self.rows.device)
        return slots < self.n_seen

    def push(self, rows: Tensor) -> None:
        """Append ``rows`` (B, *shape), oldest first; only the last ``size`` of them remain."""
        for chunk in rows.detach().to(self.rows.dtype).split(len(self.rows)):
            finite = chunk.isfinite().unsqueeze(-1).flatten(1).all(dim=1)  # (B,), also of 0 rows
            order = torch.argsort(~finite, stable=True)  # finite rows first, in stream order
            shape = (-1,) + (1,) * (chunk.ndim - 1)
            slots = (self.n_seen + torch.arange(len(chunk), device=chunk.device)) % len(self.rows)
            self.rows[slots] = torch.where(
                finite[order].reshape(shape), chunk[order], self.rows[slots]
            )
            self.n_seen += finite.sum()
