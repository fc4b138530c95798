"""Which images count as rare: by named classes and their pixels, or by the tail of the counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from solo_ood.data.images import Split
from solo_ood.data.tail import rare_classes
from solo_ood.errors import UserError, unknown_name

# Recomputed from the poster's accuracies, precisions and recalls, the same in all its rows.
POSTER_BASE_RATE = 0.1914


@dataclass(frozen=True)
class RareDefinition:
    """An image is rare if the pixels of ``class_ids`` together exceed ``min_share`` of it.

    Attributes:
        name: as the user wrote it.
        class_ids: of the classes that matter.
        min_share: in [0, 1); 0 for images of one label.
        test_min_share: of the test split; the same unless the base rate was set for each split.
    """

    name: str
    class_ids: tuple[int, ...]
    min_share: float
    test_min_share: float

    def of(self, split: Split, test: bool = False) -> np.ndarray:
        """Return (N,) bool: the rare images of ``split``."""
        limit = self.test_min_share if test else self.min_share
        return split.shares[:, list(self.class_ids)].sum(axis=1) > limit


def define(
    name: str,
    fit: Split,
    test: Split | None = None,
    min_share: float | None = None,
    base_rate: float = POSTER_BASE_RATE,
    each_split: bool = False,
) -> RareDefinition:
    """Return the definition that ``name`` stands for, checked against the data.

    Args:
        name: class names joined by ``+``, or ``tail``: the third of the classes with the fewest
            samples (for images of one label).
        fit: the labels from which the share is computed.
        test: the split that is tested on.
        min_share: minimum pixel share, in [0, 1); ``None`` = the quantile of ``fit`` that makes
            ``base_rate`` of its images rare. For masks only.
        base_rate: in (0, 1).
        each_split: take that quantile on the test split's own labels, too. For splits which differ
            so much that one share makes all or none of the test images rare.

    Raises:
        UserError: for an unknown class, or a definition that makes none or all images of a split
            rare.
    """
    if name == "tail":
        if fit.by_pixels:
            raise UserError(
                "--rare tail",
                expected="images of one label each",
                got="masks",
                remedy="Name classes, such as --rare person+bicycle.",
            )
        ids = tuple(rare_classes(fit.labels))
    else:
        for part in name.split("+"):
            if part not in fit.classes:
                raise unknown_name("class in --rare", part, fit.classes)
        ids = tuple(fit.classes.index(part) for part in dict.fromkeys(name.split("+")))
    limits = [0.5, 0.5]  # of one label: the share is 0 or 1
    if fit.by_pixels:
        splits = [fit, test if each_split and test is not None else fit]
        limits = [_limit(split, ids, min_share, base_rate) for split in splits]
    definition = RareDefinition(name, ids, *limits)
    for what, split, is_test in (("fit", fit, False), ("test", test, True)):
        if split is None:
            continue
        rate = definition.of(split, is_test).mean()
        if rate in (0, 1):
            raise UserError(
                f"--rare {name}, {what} split",
                expected="some rare images and some others",
                got=f"{rate:.0%} of {len(split)} rare at a pixel share above {limits[is_test]:.4f}",
                remedy="Use another class or --min-share, or --base-rate-of each, which takes "
                "the share of each split from its own labels.",
            )
    return definition


def _limit(split: Split, ids: tuple[int, ...], min_share: float | None, rate: float) -> float:
    if min_share is not None:
        return min_share
    return float(np.quantile(split.shares[:, list(ids)].sum(axis=1), 1 - rate))
