"""Find the exemplars of the scorer ``exemplar`` in the training data and read them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from solo_ood.errors import UserError
from solo_ood.replay.positions import Positions, indexes_of, parts_of
from solo_ood.replay.rare_loader import RareLoader
from solo_ood.replay.rows import paths_of, rows_by_name
from solo_ood.selection.rare_queue import RareQueue


class Exemplars:
    """The exemplars as crops of the training dataset: fresh augmentations, read ahead by a worker.

    Every process reads all of them, they are few.

    Args:
        given: dataset indexes and (ends of) image paths.
        train_loader: the loader whose dataset, collation and pinning are used.
        num_workers: of the replay (``mix.num_workers``); at most one is used, and for ``None`` as
            many as the train loader has.
        seed: of their augmentations.

    Raises:
        UserError: if one is not in the data, or if the data cannot be read by index.
    """

    def __init__(
        self,
        given: Sequence[int | str],
        train_loader: Any,
        num_workers: int | None = None,
        seed: int = 0,
    ) -> None:
        dataset: Any = getattr(train_loader, "dataset", None)  # DALI's loaders have none
        readable = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        if not (isinstance(train_loader, DataLoader) and readable):
            raise UserError(
                "ood.scorer.name=exemplar",
                expected="training data that can be read by index",
                got=type(train_loader if dataset is None else dataset).__name__,
                remedy="Use data.format=image_folder, or ood.scorer.name=knn.",
            )
        positions = Positions(dataset)
        # What a Subset wraps: an exemplar has the index of its sample there.
        whole = dataset if indexes_of(dataset) is None else next(parts_of(dataset))
        self.rows = rows_by_name(given, len(whole), paths_of(whole))
        for index in self.rows:
            if index not in positions:
                raise UserError(
                    "ood.scorer.exemplars",
                    expected=f"samples among the {len(positions)} of the training data",
                    got=f"index {index}, which the Subset leaves out",
                    remedy="Give others, or train on all of the data set.",
                )
        # All of a queue that never forgets are drawn each time: what replays can read exemplars.
        queue = RareQueue(len(self.rows))
        queue.push(self.rows)
        workers = train_loader.num_workers if num_workers is None else num_workers
        self._loader = RareLoader(train_loader, queue, len(self.rows), min(1, workers), seed=seed)

    def close(self) -> None:
        """End the worker."""
        self._loader.close()

    def next(self) -> list[Tensor]:
        """Return the crops, each (E, C, H, W), ordered by index."""
        batch = self._loader.next()
        assert batch is not None  # the queue always holds them
        indexes, crops, _ = batch
        order = indexes.argsort()  # equal sums in a run that was resumed
        return [crop[order] for crop in crops]
