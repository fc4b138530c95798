"""The plan of a measurement, and a check that the data allow it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from solo_ood.data.images import Split
from solo_ood.data.rare import RareDefinition
from solo_ood.detection.detectors import Detector
from solo_ood.detection.feats import Feats
from solo_ood.errors import UserError
from solo_ood.options.field import LARGEST_SEED, option


@dataclass(frozen=True)
class Plan:
    """What is measured, and how carefully.

    Attributes:
        exemplars: rows of the fit split; ``None`` = draw rare ones.
    """

    sizes: tuple[int | None, ...] = option(
        (256, 1024, None), "fit samples, or all of them", at_least=1, words={"all": None}
    )
    percentiles: tuple[float, ...] = option(
        (0.99, 0.95, 0.9, 0.8), "shares that are not flagged", above=0, below=1, metavar="P"
    )
    folds: int = option(5, "of the scores that set the thresholds", at_least=1)
    repeats: int = option(5, "subsets of a size, and seeds of what has one", at_least=1)
    exemplars: tuple[int, ...] | None = None
    n_exemplars: int = option(10, "exemplars drawn at a time, if none are named", at_least=1)
    draws: int = option(20, "of exemplars", at_least=1)
    bootstrap: int = option(500, "samples for the intervals", at_least=1)
    block: int = option(
        1,
        "neighbouring images (of a video) kept together in folds and bootstrap samples",
        at_least=1,
    )
    seed: int = option(0, "of folds, subsets and draws", at_least=0, at_most=LARGEST_SEED)


@dataclass(frozen=True)
class Task:
    """A split to fit on, one to test on, and which of their images are rare.

    Attributes:
        fit: features of the fit split.
        test: of the test split; ``None`` = score every image of the fit split by a detector that
            was fitted on the other folds.
        rare: (fit, test) bool (N,) by definition.
        regions: returns which patches of fit images (E,) show what matters by a definition, and
            which do not: (E, h * w, 2) in [0, 1]; for detectors that ask for it.
    """

    fit: Feats
    test: Feats | None
    rare: dict[RareDefinition, tuple[np.ndarray, np.ndarray]]
    regions: Callable[[RareDefinition, np.ndarray], np.ndarray] | None = None

    def exemplars(self, rows: np.ndarray, definition: RareDefinition, regions: bool) -> Feats:
        """Return the features of these fit images (E,), with their ``regions`` if asked for."""
        feats = self.fit[rows]
        if not regions or self.regions is None:
            return feats
        return replace(feats, regions=self.regions(definition, rows))


def rare_images(
    definitions: Sequence[RareDefinition], fit: Split, test: Split | None
) -> dict[RareDefinition, tuple[np.ndarray, np.ndarray]]:
    """Return (fit, test) bool (N,) by definition, see ``Task.rare``."""
    return {
        d: (d.is_rare(fit), d.is_rare(fit) if test is None else d.is_rare(test, True))
        for d in definitions
    }


def check(task: Task, plan: Plan, detectors: Sequence[Detector]) -> Plan:
    """Return the plan without sizes that the data do not allow.

    Raises:
        UserError: if no size is left, folds or exemplars cannot be drawn, or an exemplar is not
            in the data.
    """
    n = len(task.fit)
    largest = n - 1 if None in plan.sizes else n  # N images are `all` of them
    known = (size for size in plan.sizes if size is None or size <= largest)
    sizes = tuple(dict.fromkeys(known))
    for_folds = max(2, plan.block) * plan.folds
    needed = max(for_folds, min(size or 0 for size in plan.sizes))
    if n < needed:
        raise UserError(
            "fit split",
            expected=f"at least {needed} images",
            got=n,
            remedy="Give more images, or lower --folds or --block."
            if n < for_folds
            else "Give more images, or smaller --sizes (`all` always fits).",
        )
    smallest = min([n, *filter(None, sizes)])
    if plan.folds < 2 or smallest < for_folds:
        raise UserError(
            "--folds",
            expected=f"at least 2, of at least {max(2, plan.block)} fit images (--block) each",
            got=f"{plan.folds} folds of {smallest} images",
            remedy="Change --folds or --block, or raise --sizes.",
        )
    if any(detector.exemplars for detector in detectors):
        outside = [row for row in plan.exemplars or () if not 0 <= row < n]
        if outside:
            raise UserError(
                "exemplars",
                expected=f"indexes of the fit split, 0 to {n - 1}",
                got=outside[0],
                remedy="Give indexes or paths of images of the fit split.",
            )
        fewest = min((int(fit.sum()) for fit, _ in task.rare.values()), default=0)
        needed = plan.n_exemplars + (task.test is None)  # one at least must be left to find
        if plan.exemplars is None and fewest < needed:
            raise UserError(
                "exemplars",
                expected=f"at least {needed} rare images in the fit split",
                got=fewest,
                remedy="Lower --n-exemplars, or name your own with --exemplars.",
            )
    return replace(plan, sizes=sizes)
