"""Fit detectors, calibrate their thresholds on held-out scores, measure them on the test split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.model_selection import KFold

from solo_ood.benchmark.plan import Plan, Task
from solo_ood.data.rare import RareDefinition
from solo_ood.detection.detectors import Detector, Score
from solo_ood.detection.feats import Feats
from solo_ood.evaluation.ranking import (
    Interval,
    bootstrap,
    ranking_metrics,
    threshold_metrics,
    top_lift,
)


@dataclass
class Scores:
    """Scores of one detector, fitted on N samples.

    Attributes:
        detector: its name.
        n_fit: N; ``None`` if it learns nothing.
        held_out: of each repeat, scores of fit samples the detector had not seen.
        test: of each repeat, (N_test,) scores; NaN for exemplars.
    """

    detector: str
    n_fit: int | None
    held_out: list[np.ndarray] = field(default_factory=list)
    test: list[np.ndarray] = field(default_factory=list)

    def thresholds(self, percentile: float) -> list[float]:
        """Return the threshold of each repeat: ``is_ood == (ood_score > threshold)``."""
        return [float(np.quantile(scores, percentile)) for scores in self.held_out]


@dataclass(frozen=True)
class TableRow:
    """One line of the table.

    Attributes:
        percentile: p, the share of the stream that is not to be flagged.
        metrics: by name; the mean over the repeats and the interval of a single one.
    """

    embedder: str
    definition: str
    detector: str
    n_fit: int | None
    percentile: float
    n_test: int
    repeats: int
    threshold: float
    metrics: dict[str, Interval]


def score(
    task: Task,
    detectors: Sequence[Detector],
    plan: Plan,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[RareDefinition, list[Scores]]:
    """Run every detector with every size; return the scores by definition of rare."""
    result: dict[RareDefinition, list[Scores]] = {definition: [] for definition in task.rare}
    for detector in detectors:
        for size in plan.sizes if detector.learns else (None,):
            progress(f"{detector.name}, N = {size or 'all'}")
            scores = {definition: Scores(detector.name, None) for definition in task.rare}
            varies = detector.seeded or size is not None
            fits = plan.repeats if varies else 1
            for repeat in range(fits):
                models = _fit(detector, task, size, plan, plan.seed + repeat)
                shared = None if detector.exemplars else models.score()
                for definition, (rare, _) in task.rare.items():
                    scores[definition].n_fit = models.n_fit if detector.learns else None
                    found = (
                        [shared]
                        if shared
                        else [
                            models.score(rows, task.exemplars(rows, definition, detector.regions))
                            for rows in draws(rare, plan, repeat, fits)
                        ]
                    )
                    for held_out, test in found:
                        scores[definition].held_out.append(held_out)
                        scores[definition].test.append(test)
            for definition, collected in scores.items():
                result[definition].append(collected)
    return result


def measure(
    scores: Scores, rare: np.ndarray, plan: Plan, embedder: str, definition: str
) -> list[TableRow]:
    """Return the rows of one detector and size, one for each percentile.

    Args:
        scores: from ``score``.
        rare: (N_test,) bool.
        plan: the same.
        embedder: name of the network.
        definition: name of the definition of rare.
    """
    thresholds = {p: scores.thresholds(p) for p in plan.percentiles}

    def metrics(repeat: int, rows: np.ndarray) -> dict[str, float]:
        values = scores.test[repeat][rows]
        known = ~np.isnan(values)
        values, truth = values[known], rare[rows][known]
        found = ranking_metrics(truth, values)
        for p in plan.percentiles:
            flagged = threshold_metrics(truth, values > thresholds[p][repeat])
            flagged["top_lift"] = top_lift(truth, values, 1 - p)
            found |= {f"{name} {p}": value for name, value in flagged.items()}
        return found

    drawn = bootstrap(metrics, len(rare), len(scores.test), plan.bootstrap, plan.block, plan.seed)
    shared = {name: value for name, value in drawn.items() if " " not in name}
    rows = []
    for p in plan.percentiles:
        own = {
            name.partition(" ")[0]: value
            for name, value in drawn.items()
            if name.partition(" ")[2] == str(p)
        }
        threshold = float(np.mean(thresholds[p]))
        head = (embedder, definition, scores.detector, scores.n_fit, p)
        rows.append(TableRow(*head, len(rare), len(scores.test), threshold, own | shared))
    return rows


@dataclass(frozen=True)
class _Models:
    """A detector fitted on all of its samples and on all but each fold."""

    task: Task
    whole: Score | None
    folds: list[tuple[np.ndarray, Score]]
    n_fit: int
    block: int

    def score(
        self, exemplars: np.ndarray | None = None, feats: Feats | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return held-out scores of the fit split and those of the test split.

        Args:
            exemplars: their rows in the fit split (E,).
            feats: what the detector may see of them.
        """
        fit = self.task.fit
        every = np.full(len(fit), np.nan)
        for rows, model in self.folds:
            every[rows] = model(fit[rows], feats)
        if exemplars is not None:  # they are known already, and so are their neighbours
            blocks = np.arange(len(fit)) // self.block
            every[np.isin(blocks, blocks[exemplars])] = np.nan
        held_out = every[~np.isnan(every)]
        if self.whole is None or self.task.test is None:
            return held_out, every
        return held_out, self.whole(self.task.test, feats)


def _fit(detector: Detector, task: Task, size: int | None, plan: Plan, seed: int) -> _Models:
    """Fit on ``size`` samples and, for held-out scores, on all but each fold of them.

    Without a test split every image has to be scored: the folds then are those of all images, and
    each model is fitted on ``size`` samples of the other folds.
    """
    rng = np.random.default_rng(seed)
    n = len(task.fit)
    if not detector.learns:  # then all scores are held out
        model = detector.fit(task.fit, seed)
        return _Models(task, model, [(np.arange(n), model)], n, plan.block)
    chosen = np.arange(n)
    if size is not None and task.test is not None:
        chosen = np.sort(rng.choice(n, size, replace=False))
    folds = []
    blocks = np.arange(len(chosen)) // plan.block
    splitter = KFold(plan.folds, shuffle=True, random_state=seed)
    for _, held_blocks in splitter.split(np.unique(blocks)):
        is_held = np.isin(blocks, held_blocks)
        rest, held = np.flatnonzero(~is_held), np.flatnonzero(is_held)
        if task.test is None and size is not None and size < len(rest):
            rest = np.sort(rng.choice(rest, size, replace=False))
        # A seed for each fold: noise that is the same in all of them would be fewer scores.
        model = detector.fit(task.fit[chosen[rest]], int(rng.integers(2**31)))
        folds.append((chosen[held], model))
    if task.test is None:
        return _Models(task, None, folds, len(rest), plan.block)
    whole = detector.fit(task.fit[chosen], seed)
    return _Models(task, whole, folds, len(chosen), plan.block)


def draws(rare: np.ndarray, plan: Plan, repeat: int, repeats: int) -> list[np.ndarray]:
    """Return the rows of the exemplars of each draw that belongs to this repeat."""
    if plan.exemplars is not None:
        return [np.array(plan.exemplars)]
    pool = np.flatnonzero(rare)
    return [
        np.random.default_rng(plan.seed + draw).choice(pool, plan.n_exemplars, replace=False)
        for draw in range(repeat, plan.draws, repeats)
    ]
