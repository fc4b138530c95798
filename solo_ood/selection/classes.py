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
    before ``targets``: solo-learn's ``data.fraction`` shortens only the former. They are those that
    batches have: a ``target_transform`` is applied, to each label once.
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
            labels = _integers(targets, _length(dataset, len(targets)))
            labels = _transformed(labels, getattr(dataset, "target_transform", None))
        except AttributeError:
            continue
        except _NotIntegers as error:
            found.append(str(error))
            continue
        except Exception as error:  # a property may raise anything, a method has no length
            found.append(f"{type(error).__name__}: {error}")
            continue
        return labels if labels.max() >= 0 else None
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


class _NotIntegers(ValueError):
    """Labels that are not one integer a sample; the text is what they are."""


def _integers(labels: Any, size: int) -> np.ndarray:
    """Return ``labels`` as (size,) int64, or raise ``_NotIntegers``."""
    array = np.asarray(labels)
    if array.ndim == 1 and array.dtype == object and all(map(_is_integer, array)):
        array = array.astype(np.int64)  # raises for what is too large
    if array.ndim != 1 or array.dtype.kind not in "iub":
        odd = next((one for one in labels if not _is_integer(one)), labels)
        raise _NotIntegers(f"{short_repr(odd)} among {len(labels)}")
    if len(array) != size:
        raise _NotIntegers(f"{len(array)} for {size} samples")
    if array.dtype.kind == "u" and array.max() > np.iinfo(np.int64).max:
        raise _NotIntegers(f"{array.max()}, which is too large")
    return array.astype(np.int64)


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer, np.bool_))


def _transformed(labels: np.ndarray, transform: Any) -> np.ndarray:
    if not callable(transform):
        return labels
    classes, places = np.unique(labels, return_inverse=True)
    return _integers([transform(int(one)) for one in classes], len(classes))[places]


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
