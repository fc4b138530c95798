"""Which images count as rare: by named classes and their pixels, or by the tail of the counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from solo_ood.data.images import Split
from solo_ood.data.names import normalise_name
from solo_ood.errors import UserError, short_repr, unknown_name
from solo_ood.selection.classes import rare_classes

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

    def is_rare(self, split: Split, test: bool = False) -> np.ndarray:
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
            samples (for images with labels, not masks). A name that holds a ``+`` goes before the
            parts of it.
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
    name = normalise_name(name)
    if name == "tail":
        if fit.by_pixels:
            raise UserError(
                "--rare tail",
                expected="images of one label each, or of several",
                got="masks",
                remedy="Name classes, such as --rare person+bicycle.",
            )
        ids = tuple(rare_classes(np.nonzero(fit.shares)[1]))  # each label of an image counts
    else:
        ids = tuple(fit.classes.index(part) for part in dict.fromkeys(_parts(name, fit.classes)))
    limits = [0.5, 0.5]  # of labels: each has a share of 0 or 1
    if fit.by_pixels:
        splits = [fit, test if each_split and test is not None else fit]
        limits = [_limit(split, ids, min_share, base_rate) for split in splits]
    definition = RareDefinition(name, ids, *limits)
    check_rates(definition, fit, test)
    return definition


def check_rates(definition: RareDefinition, fit: Split, test: Split | None = None) -> None:
    """Raise ``UserError`` if none or all images of a split are rare."""
    for what, split, is_test in (("fit", fit, False), ("test", test, True)):
        if split is None:
            continue
        rate = definition.is_rare(split, is_test).mean()
        if rate in (0, 1):
            got = f"{rate:.0%} of {len(split)} rare"
            remedy = "Name other classes, or give images with and without these."
            if split.by_pixels:
                limit = definition.test_min_share if is_test else definition.min_share
                got += f" at a pixel share above {limit:.4f}"
                remedy = (
                    "Use another class or --min-share, or --base-rate-of each, which takes "
                    "the share of each split from its own labels."
                )
            raise UserError(
                f"--rare {definition.name}, {what} split",
                expected="some rare images and some others",
                got=got,
                remedy=remedy,
            )


def tail_note(definition: RareDefinition, fit: Split, test: Split | None = None) -> str:
    """Return which classes ``tail`` stands for, and in how many images they are."""
    names = [fit.classes[class_id] for class_id in definition.class_ids]
    listed = ", ".join(names[:10]) + f" and {len(names) - 10} more" * (len(names) > 10)
    note = f"tail = {listed} ({int(definition.is_rare(fit).sum())} of {len(fit)})"
    if test is not None:
        note += f", {int(definition.is_rare(test, True).sum())} of {len(test)} in the test split"
    return note


def _parts(name: str, classes: Sequence[str]) -> list[str]:
    """Return the classes that ``name`` joins by ``+``, with the longest names that there are.

    Raises:
        UserError: for a name that is no class.
    """
    words = name.split("+")
    # How the words from each one on are classes joined by "+", from the last word backwards.
    found: list[list[str] | None] = [None] * len(words) + [[]]
    for first in reversed(range(len(words))):
        for end in reversed(range(first + 1, len(words) + 1)):
            whole, rest = normalise_name("+".join(words[first:end])), found[end]
            if whole in classes and rest is not None:
                found[first] = [whole, *rest]
                break
    parts = found[0]
    if parts is not None:
        return parts
    unknown = [word for word in map(normalise_name, words) if word not in classes]
    wrong = unknown[0] if all(unknown) else name  # of `c+++car`, there is no telling which
    in_other_case = [name for name in classes if name.casefold() == wrong.casefold()]
    if in_other_case:
        raise UserError(
            "Unknown class in --rare",
            expected=f"one of {', '.join(classes)}",
            got=short_repr(wrong),
            remedy=f"Did you mean {in_other_case[0]!r}? Case counts.",
        )
    raise unknown_name("class in --rare", wrong, classes)


def _limit(split: Split, ids: tuple[int, ...], min_share: float | None, rate: float) -> float:
    if min_share is not None:
        return min_share
    return float(np.quantile(split.shares[:, list(ids)].sum(axis=1), 1 - rate))
