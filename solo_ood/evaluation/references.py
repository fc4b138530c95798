"""What a classifier is fitted on: held-out labelled images, or parts of the training images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from solo_ood.evaluation.options import HELD_OUT, REFERENCES

FOLDS = 5  # at most, of validation images that serve as their own reference
SHARE, SHOTS = 0.01, 20  # of "1%" and "20-shot"


class Fit(NamedTuple):
    """One classifier: rows (n,) of the images it is fitted on, rows (m,) of those it classifies."""

    known: np.ndarray
    asked: np.ndarray


@dataclass(frozen=True)
class Reference:
    """A way to choose the images that classifiers are fitted on.

    Attributes:
        name: of ``options.REFERENCES``.
        source: whose images they are: ``held_out``, ``val`` or ``train``.
        draws: R draws; the fits of each classify every validation image once.
        images: in a fit of the first draw.
        per_class: the fewest and the most of a class in it.
    """

    name: str
    source: str
    draws: Sequence[Sequence[Fit]]
    images: int
    per_class: tuple[int, int]

    @property
    def text(self) -> str:
        """Return what is fitted on, in a few words."""
        low, high = self.per_class
        each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        of = {"held_out": "--held-out", "val": "--val", "train": "--train"}[self.source]
        parts = [f"{self.images:,} images of {of}, {each} a class"]
        if len(self.draws) > 1:
            parts.append(f"mean of {len(self.draws)} draws")
        if len(self.draws[0]) > 1:
            parts.append(f"{len(self.draws[0])} folds")
        return f"{self.name}: {', '.join(parts)}"


def _reference(
    name: str, source: str, targets: np.ndarray, draws: Sequence[Sequence[Fit]]
) -> Reference:
    first = draws[0][0].known
    counts = np.unique(targets[first], return_counts=True)[1]
    return Reference(name, source, draws, len(first), (int(counts.min()), int(counts.max())))


def of_training(
    name: str, targets: np.ndarray, n_asked: int, draws: int, seed: int
) -> Reference | None:
    """Return a reference of training images; ``None`` if it would be all of them once more.

    ``train`` is all of them, with the frequencies that they have. ``balanced`` takes as many of
    each class as the rarest has, ``20-shot`` at most 20, ``1%`` that share of each class and at
    least one image.

    Args:
        name: of ``options.OF_TRAINING``.
        targets: (N,) class ids of the training images.
        n_asked: M, validation images.
        draws: of a part of them.
        seed: of the draws.
    """
    everything, asked = np.arange(len(targets)), np.arange(n_asked)
    if name == "train":
        return _reference(name, "train", targets, [[Fit(everything, asked)]])
    most = {
        "balanced": _smallest_class(targets),
        "20-shot": lambda n: SHOTS,
        "1%": lambda n: max(1, round(SHARE * n)),
    }[name]
    rng = np.random.default_rng([seed, REFERENCES.index(name)])
    fits = [[Fit(_drawn(targets, most, rng), asked)] for _ in range(draws)]
    if len(fits[0][0].known) == len(targets):
        return None
    return _reference(name, "train", targets, fits)


def held_out(targets: np.ndarray, n_asked: int, draws: int, seed: int) -> Reference:
    """Return the reference of labelled images that were not trained on, as many of each class.

    Args:
        targets: (N,) class ids of the held-out images.
        n_asked: M, validation images.
        draws: where they are not balanced themselves.
        seed: of these draws.
    """
    rng = np.random.default_rng([seed, REFERENCES.index(HELD_OUT)])
    most, asked = _smallest_class(targets), np.arange(n_asked)
    fits = [[Fit(_drawn(targets, most, rng), asked)] for _ in range(draws)]
    whole = len(fits[0][0].known) == len(targets)
    return _reference(HELD_OUT, "held_out", targets, fits[:1] if whole else fits)


def cross_fitted(targets: np.ndarray, seed: int) -> Reference | None:
    """Return the held-out reference that validation images are for each other.

    Each fold is classified by what is fitted on the other ones, as many images of each class.
    ``None`` if there is one class only, or one with a single image.

    Args:
        targets: (M,) class ids of the validation images.
        seed: of the folds and of what is drawn from them.
    """
    from sklearn.model_selection import StratifiedKFold

    counts = np.unique(targets, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < 2:
        return None
    rng = np.random.default_rng([seed, REFERENCES.index(HELD_OUT)])
    folds = StratifiedKFold(min(FOLDS, counts.min()), shuffle=True, random_state=seed)
    fits = []
    for others, asked in folds.split(targets, targets):
        most = _smallest_class(targets[others])
        fits.append(Fit(others[_drawn(targets[others], most, rng)], asked))
    return _reference(HELD_OUT, "val", targets, [fits])


def _smallest_class(targets: np.ndarray) -> Callable[[int], int]:
    smallest = int(np.unique(targets, return_counts=True)[1].min())
    return lambda n: smallest


def _drawn(targets: np.ndarray, most: Callable[[int], int], rng: np.random.Generator) -> np.ndarray:
    """Return rows, at most ``most(n)`` of each class of n images, in ascending order."""
    rows = []
    for label in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == label))
        rows.append(members[: most(len(members))])
    return np.sort(np.concatenate(rows))
