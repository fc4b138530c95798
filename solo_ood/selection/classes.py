"""The labels of a training set, and which of its classes are rare."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from solo_ood.errors import message, short_repr


def class_groups(targets: Sequence[int] | np.ndarray) -> dict[str, list[int]]:
    """Split the classes into thirds by their number of samples: Many, Medium, Few.

    The protocol of SDCLR (Jiang et al., 2021, arXiv:2106.02990). Of 10 classes, Many gets 4; with
    fewer than 3 classes, Medium stays empty.
    """
    classes, counts = np.unique(np.asarray(targets), return_counts=True)
    counts, classes = counts[classes >= 0], classes[classes >= 0]
    ordered = [int(c) for c in classes[np.argsort(-counts, kind="stable")]]
    few = max(1, len(ordered) // 3) if len(ordered) > 1 else 0
    medium = len(ordered) // 3
    many = len(ordered) - few - medium
    return {
        "Many": ordered[:many],
        "Medium": ordered[many : many + medium],
        "Few": ordered[many + medium :],
    }


def rare_classes(targets: Sequence[int] | np.ndarray) -> list[int]:
    """Return the ids of the third of the classes with the fewest samples."""
    return class_groups(targets)["Few"]


def targets_of(dataset: Any) -> np.ndarray | None:
    """Return the labels (N,) int of a dataset without reading its images; ``None`` if unlabelled.

    What is not one integer a sample counts as unlabelled, and a warning says so. ``samples`` goes
    before ``targets``: solo-learn's ``data.fraction`` shortens only the former.
    """
    wrapped = _targets_of_parts(dataset)
    if wrapped is not None:
        return wrapped
    found: list[Any] = []
    for read in (_second_of_samples, lambda data: data.targets):
        try:
            targets = read(dataset)
            if targets is None or len(targets) == 0:
                continue
            array = np.asarray(targets)
        except AttributeError:
            continue
        except Exception as error:  # a property may raise anything, a method has no length
            found.append(f"{type(error).__name__}: {error}")
            continue
        if array.shape == (_length(dataset, len(targets)),) and array.dtype.kind in "iub":
            return array.astype(np.int64) if array.max() >= 0 else None
        found.append(f"{short_repr(next(iter(targets)))} as the first of {len(targets)}")
    if found:
        warnings.warn(
            message(
                "labels of the training data",
                expected="one integer a sample",
                got=found[-1],
                remedy="They count as none: nothing is logged of rare classes.",
            ),
            RuntimeWarning,
            stacklevel=2,
        )
    return None


def _targets_of_parts(dataset: Any) -> np.ndarray | None:
    """Return the labels of what torch's ``Subset`` and ``ConcatDataset`` wrap."""
    from torch.utils.data import ConcatDataset, Subset  # torch takes seconds to import

    if isinstance(dataset, Subset):
        whole = targets_of(dataset.dataset)
        return None if whole is None else whole[np.asarray(dataset.indices, dtype=np.int64)]
    if isinstance(dataset, ConcatDataset):
        parts = [targets_of(part) for part in dataset.datasets]
        labelled = [part for part in parts if part is not None]
        return np.concatenate(labelled) if len(labelled) == len(parts) else None
    return None


def _second_of_samples(dataset: Any) -> list[Any]:
    pairs = dataset.samples
    return [target for _, target in pairs]


def _length(dataset: Any, otherwise: int) -> int:
    return len(dataset) if hasattr(dataset, "__len__") else otherwise
