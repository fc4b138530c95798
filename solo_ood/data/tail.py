"""Head and tail of a labelled data set, and long-tail profiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from solo_ood.errors import UserError


def exponential_counts(largest: int, num_classes: int, imbalance: float) -> list[int]:
    """Return samples per class, falling exponentially from ``largest`` to ``largest/imbalance``.

    The profile of CIFAR-LT (Cui et al., 2019, arXiv:1901.05555).
    """
    if num_classes < 2 or imbalance < 1:
        raise UserError(
            "long-tail profile",
            expected="at least 2 classes and an imbalance of at least 1",
            got=f"{num_classes} and {imbalance}",
            remedy="Give a data set with classes, and largest / smallest class.",
        )
    shares = imbalance ** (-np.arange(num_classes) / (num_classes - 1))
    return [max(1, round(largest * share)) for share in shares]


def targets_of(dataset: Any) -> np.ndarray | None:
    """Return the labels (N,) int of a dataset without reading its images; ``None`` if unlabelled.

    ``samples`` goes before ``targets``: solo-learn's ``data.fraction`` shortens only the former.
    """
    if hasattr(dataset, "samples"):
        targets: Any = [target for _, target in dataset.samples]
    else:
        targets = getattr(dataset, "targets", None)
    if targets is None or len(targets) == 0:
        return None
    array = np.asarray(targets)
    return array if array.max() >= 0 else None


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
