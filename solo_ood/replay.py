"""Read queued samples again: through their dataset with fresh augmentations, or as kept crops."""

from __future__ import annotations

import copy
import math
import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from solo_ood.errors import message
from solo_ood.rare_queue import RareQueue


class _QueueSampler(Sampler):
    """Batches of queued indexes, this process's share of one common draw; ends when too few."""

    def __init__(self, queue: RareQueue, rows: int, rank: int, world_size: int) -> None:
        self.queue, self.rows, self.rank, self.world_size = queue, rows, rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        while drawn := self.queue.draw(self.rows * self.world_size):
            yield drawn[self.rank * self.rows : (self.rank + 1) * self.rows]


class RareLoader:
    """Replay through the training dataset: fresh augmentations, read by workers of its own.

    Every process draws the same indexes from its copy of the queue and reads its own share, so m
    is equal on all of them.

    Args:
        train_loader: the loader whose dataset, collation and pinning are used.
        queue: where the indexes are drawn.
        rows: m, rows per process and step.
        num_workers: ``None`` = the train loader's in proportion to m, at least one if it has any.
        rank, world_size: this process and the number of processes.

    Raises:
        ValueError: if the dataset cannot be read by index or does not return its index first.
    """

    def __init__(
        self,
        train_loader: DataLoader,
        queue: RareQueue,
        rows: int,
        num_workers: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        dataset: Any = getattr(train_loader, "dataset", None)  # DALI's loaders have none
        _check_indexed(dataset)
        if num_workers is None:
            share = rows / (train_loader.batch_size or rows)
            num_workers = math.ceil(train_loader.num_workers * share)
        # A generator of its own: the global RNG must not be used for the workers' seeds.
        self._loader = DataLoader(
            dataset,
            batch_sampler=_QueueSampler(queue, rows, rank, world_size),
            num_workers=num_workers,
            collate_fn=train_loader.collate_fn,
            pin_memory=train_loader.pin_memory,
            worker_init_fn=train_loader.worker_init_fn,
            generator=torch.Generator().manual_seed(rank),
            persistent_workers=num_workers > 0,
            # torch refuses a context without workers
            multiprocessing_context=train_loader.multiprocessing_context if num_workers else None,
        )
        self._iterator: Iterator[Any] | None = None
        self._queue, self._wanted = queue, rows * world_size

    def next(self) -> Sequence[Any] | None:
        """Return ``[indexes (m,), [crops], targets (m,)]``, or ``None`` with too few queued."""
        if self._iterator is None:
            if not self._queue.holds(self._wanted):
                return None  # starting the workers for nothing is not free
            self._iterator = iter(self._loader)
        batch = next(self._iterator, None)
        if batch is None:  # the queue ran dry; ask again at the next step
            self._iterator = None
        return batch


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
    def number(batch: Sequence[Any], step: int) -> list[Any]:
        """Return ``batch`` with an index of its own for every row ever seen.

        DALI numbers the rows of every batch alike unless told to encode its indexes.
        """
        indexes, crops, targets = batch
        fresh = torch.arange(len(indexes), device=indexes.device) + step * len(indexes)
        return [fresh, crops, targets]

    def keep(self, batch: Sequence[Any]) -> None:
        """Keep the rows of ``batch`` that are queued and not held yet; drop those that left."""
        indexes, crops, targets = batch
        for row, index in enumerate(indexes.tolist()):
            if index in self.queue and index not in self._samples:
                # clone: a view would keep the whole batch alive
                self._samples[index] = ([c[row].cpu().clone() for c in crops], targets[row].cpu())
        for index in [i for i in self._samples if i not in self.queue]:
            del self._samples[index]

    def next(self) -> Sequence[Any] | None:
        """Return ``[indexes (m,), [crops], targets (m,)]``, or ``None`` with too few queued."""
        held = dict(self._samples)  # drawing may take an index out of the queue
        drawn = self.queue.draw(self.rows)
        lost = [index for index in drawn if index not in held]
        if lost or not drawn:
            self.queue.discard(lost)  # queued before a resume: nobody holds their crops any more
            return None
        samples = [held[index] for index in drawn]
        crops = [torch.stack(rows) for rows in zip(*(crops for crops, _ in samples))]
        return [torch.tensor(drawn), crops, torch.stack([target for _, target in samples])]


def _check_indexed(dataset: Any) -> None:
    """Raise unless ``dataset[i]`` is ``(i, crops, target)``, as solo-learn's own datasets are."""
    remedy = (
        "Wrap its class in solo-learn's `dataset_with_index`, or keep the crops themselves with "
        "ood.queue.store=crops."
    )
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise ValueError(
            message(
                "training dataset",
                expected="a map-style dataset that can be read by index",
                got=type(dataset).__name__,
                remedy=remedy,
            )
        )
    with _global_rng_kept():
        sample = copy.copy(dataset)[0]  # a copy: h5 files open on first use must not be shared
    if not (isinstance(sample, (tuple, list)) and len(sample) == 3 and _is_index(sample[0], 0)):
        got = f"a sample of {len(sample)} parts" if isinstance(sample, (tuple, list)) else sample
        raise ValueError(
            message(
                "training dataset",
                expected="samples (index, crops, target) whose index is their position",
                got=got,
                remedy=remedy,
            )
        )


@contextmanager
def _global_rng_kept() -> Iterator[None]:
    """Undo what the augmentations of a probed sample draw from the global generators."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


def _is_index(value: Any, index: int) -> bool:
    return (
        isinstance(value, (int, torch.Tensor))
        and not isinstance(value, bool)
        and bool(value == index)
    )
