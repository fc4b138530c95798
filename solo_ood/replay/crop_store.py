"""Replay the crops that were flagged, for data that cannot be read by index."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any

import torch

from solo_ood.selection.rare_queue import RareQueue


class CropStore:
    """Replay the very crops that were flagged, kept on the CPU (for DALI and iterable datasets).

    One process only: a process holds no crops of the others. Keeping crops waits for the device;
    that is the price of data that cannot be read again.

    Args:
        queue: where the indexes are drawn; crops of indexes that left it are dropped.
        rows: m, rows per step.
    """

    def __init__(self, queue: RareQueue, rows: int) -> None:
        self.queue, self.rows = queue, rows
        self._samples: OrderedDict[int, tuple[list[torch.Tensor], torch.Tensor]] = OrderedDict()

    @staticmethod
    def assign_indexes(batch: Sequence[Any], first: int) -> list[Any]:
        """Return ``batch`` with indexes from ``first`` on, so that every row ever seen has its own.

        DALI numbers the rows of every batch alike unless told to encode its indexes.
        """
        indexes, crops, targets = batch
        fresh = torch.arange(first, first + len(indexes), device=indexes.device)
        return [fresh, crops, targets]

    def store(self, batch: Sequence[Any], undecided: Collection[int] = ()) -> None:
        """Keep the rows of ``batch`` that are queued, or may be once they are judged.

        Other rows are dropped; a sample that is stored already keeps its first crops.
        """
        indexes, crops, targets = batch
        wanted = {*self.queue, *undecided}
        for row, index in enumerate(indexes.tolist()):
            if index in wanted and index not in self._samples:
                # clone: a view would keep the whole batch alive
                self._samples[index] = ([c[row].cpu().clone() for c in crops], targets[row].cpu())
        for index in [i for i in self._samples if i not in wanted]:
            del self._samples[index]

    def next(self) -> Sequence[Any] | None:
        """Return ``[indexes (m,), [crops], targets (m,)]``, or ``None`` with too few queued."""
        # Queued before a resume, or waiting for a verdict then: their crops are gone.
        self.queue.discard([index for index in self.queue if index not in self._samples])
        held = dict(self._samples)  # drawing may take an index out of the queue
        drawn = self.queue.draw(self.rows)
        if not drawn:
            return None
        samples = [held[index] for index in drawn]
        crops = [torch.stack(rows) for rows in zip(*(crops for crops, _ in samples))]
        return [torch.tensor(drawn), crops, torch.stack([target for _, target in samples])]
