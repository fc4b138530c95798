"""At which position of a training dataset a sample with a given index is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Subset

from solo_ood.errors import UserError


def parts_of(dataset: Any) -> Iterator[Any]:
    """Yield the datasets that torch's ``Subset`` and ``ConcatDataset`` wrap, or ``dataset``."""
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from parts_of(part)
    elif isinstance(dataset, Subset):
        yield from parts_of(dataset.dataset)
    else:
        yield dataset


def indexes_of(dataset: Any) -> np.ndarray | None:
    """Return the index (N,) that the sample at each position carries; ``None`` = its position.

    A sample of a ``Subset`` carries the index that it has in the wrapped dataset, at any depth. So
    does one of a ``ConcatDataset``; where its parts wrap more than one dataset, an index stands for
    several samples, which the probe detects.
    """
    if _is(dataset, Subset):
        inner, rows = indexes_of(dataset.dataset), np.asarray(dataset.indices, dtype=np.int64)
        return rows if inner is None else inner[rows]
    if _is(dataset, ConcatDataset):
        if len({id(part) for part in parts_of(dataset)}) > 1:
            return None
        parts = [(indexes_of(part), len(part)) for part in dataset.datasets]
        return np.concatenate([np.arange(n) if rows is None else rows for rows, n in parts])
    return None


class Positions:
    """Positions of samples by index, to read a queued sample again.

    Args:
        dataset: the training dataset.
    """

    def __init__(self, dataset: Any) -> None:
        self._size = len(dataset)
        self._by_index: np.ndarray | None = None
        indexes = indexes_of(dataset)
        if indexes is not None and len(indexes) and indexes.min() < 0:
            raise UserError(
                "training dataset, a Subset",
                expected="indexes of at least 0",
                got=int(indexes.min()),
                remedy="Count from the start of the wrapped dataset.",
            )
        if indexes is not None:
            # Backwards, so that the first position of a repeated sample counts.
            self._by_index = np.full(int(indexes.max(initial=-1)) + 1, -1)
            self._by_index[indexes[::-1]] = np.arange(len(indexes))[::-1]
        self._indexes = indexes

    def __len__(self) -> int:
        return self._size

    def __contains__(self, index: int) -> bool:
        return self.position_of(index) is not None

    def index_at(self, position: int) -> int:
        """Return the index that the sample at this position must carry."""
        return position if self._indexes is None else int(self._indexes[position])

    def position_of(self, index: int) -> int | None:
        """Return the position of the sample with this index; ``None`` if there is none."""
        if self._by_index is None:
            return index if 0 <= index < self._size else None
        position = int(self._by_index[index]) if 0 <= index < len(self._by_index) else -1
        return position if position >= 0 else None


def same_file(previous: Any, now: Any) -> Callable[[int], bool]:
    """Return whether an index names the same file in two datasets; False if that is unknown."""
    first, second, there = _indexed(previous), _indexed(now), Positions(now)

    def same(index: int) -> bool:
        path = _path(first, index) if index in there else None
        return path is not None and path == _path(second, index)

    return same


def path_of(dataset: Any, index: int) -> str | None:
    """Return the path of a sample of an ImageFolder or of solo-learn's folder without classes."""
    return _path(_indexed(dataset), index)


def _indexed(dataset: Any) -> Any:
    """Return the dataset that the samples' indexes are of; ``None`` if there is not one."""
    if isinstance(dataset, (Subset, ConcatDataset)):
        return None if indexes_of(dataset) is None else next(parts_of(dataset))
    return dataset


def _path(dataset: Any, index: int) -> str | None:
    try:
        if hasattr(dataset, "samples"):
            return str(dataset.samples[index][0])
        return str(Path(dataset.root) / dataset.images[index])
    except Exception:  # of whatever dataset it is
        return None


def copied(dataset: Any) -> Any:
    """Return a copy that opens its own files: opened h5 files are not shared with workers."""
    dataset = copy.copy(dataset)
    if isinstance(dataset, Subset):
        dataset.dataset = copied(dataset.dataset)
    elif isinstance(dataset, ConcatDataset):
        dataset.datasets = [copied(part) for part in dataset.datasets]
    return dataset


def _is(dataset: Any, kind: Any) -> bool:
    """Whether it is of this class and reads as the class does, not as a subclass of it."""
    return isinstance(dataset, kind) and type(dataset).__getitem__ is kind.__getitem__
