"""How often each image was trained on, fresh and as a replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback


class TrainedRows(Callback):
    """Count the rows of every step by dataset index; goes on where a checkpoint stopped.

    Args:
        n_images: N of the training set.
    """

    def __init__(self, n_images: int) -> None:
        self.counts = torch.zeros(2, n_images, dtype=torch.int64)  # fresh, replayed

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Sequence[Any], batch_idx: int
    ) -> None:
        indexes, n_replayed = module.trained_rows
        self.counts = self.counts.to(indexes.device)
        n_fresh = len(indexes) - n_replayed
        for counts, rows in zip(self.counts, (indexes[:n_fresh], indexes[n_fresh:])):
            read = rows >= 0  # others stand in for an image that cannot be read
            counts.index_add_(0, rows.clamp(min=0), read.to(counts.dtype))

    def state_dict(self) -> dict[str, Any]:
        return {"counts": self.counts.cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.counts = state_dict["counts"]

    def by_class(self, targets: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
        """Return a record of each class, the most frequent first.

        Args:
            targets: (N,) class ids.
            classes: names, by id.

        Returns:
            ``name``; ``images`` that there are; ``fresh`` rows trained on; ``replayed`` rows;
            ``distinct`` images replayed.
        """
        fresh, replayed = self.counts.cpu().numpy()
        found = []
        for label, name in enumerate(classes):
            own = targets == label
            found.append(
                {
                    "name": name,
                    "images": int(own.sum()),
                    "fresh": int(fresh[own].sum()),
                    "replayed": int(replayed[own].sum()),
                    "distinct": int((replayed[own] > 0).sum()),
                }
            )
        return sorted(found, key=lambda record: -record["images"])
