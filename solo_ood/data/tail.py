"""Long-tail profiles: how many samples the classes of a data set have."""

from __future__ import annotations

import numpy as np

from solo_ood.errors import UserError


def exponential_counts(largest: int, num_classes: int, imbalance: float) -> list[int]:
    """Return samples per class, falling exponentially from ``largest`` to ``largest/imbalance``.

    The profile of CIFAR-LT (Cui et al., 2019, arXiv:1901.05555).
    """
    if num_classes < 2 or not 1 <= imbalance < float("inf"):
        raise UserError(
            "long-tail profile",
            expected="at least 2 classes and an imbalance of at least 1",
            got=f"{num_classes} and {imbalance}",
            remedy="Give a data set with classes, and largest / smallest class.",
        )
    shares = imbalance ** (-np.arange(num_classes) / (num_classes - 1))
    return [max(1, round(largest * share)) for share in shares]
