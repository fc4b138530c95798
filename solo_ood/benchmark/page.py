"""What the page of a measurement says of its results: the conclusion, the table, the captions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from solo_ood.benchmark.measure import Scores, TableRow
from solo_ood.benchmark.table import HEADS, METRICS, metric_text, size_text
from solo_ood.data.images import Split
from solo_ood.data.rare import RareDefinition
from solo_ood.evaluation.ranking import Interval, ranking_metrics
from solo_ood.files.text import few
from solo_ood.pages.parts import Cell, Column, Table, number_cell

TERMS = (
    *("ood_score", "rare", "detector", "exemplar", "embedding", "threshold"),
    *("p", "N", *METRICS.values(), "95 % interval"),
)
_WITH_INTERVAL = ("lift", "top_lift", "auroc")


def conclusion(rows: Sequence[TableRow], rare: Sequence[str]) -> list[str]:
    """Return in three lines which detector ranks best, what it finds, and how sure that is.

    Args:
        rows: of one definition of rare, or the means over several.
        rare: the names of these definitions.
    """
    best = _best_rows(rows)
    if not best:
        return ["No detector could be ranked: AUROC needs rare and other images with scores."]
    first, second = best[0], best[1] if len(best) > 1 else None
    what = "" if math.isnan(first.metrics["auroc"].low) else " [95 % interval]"
    lines = [
        f"{_called(first)} ranks the images best: AUROC{what} {_text(first, 'auroc')}; "
        f"a random detector has 0.5. Rare: {few(rare)}{', mean of all' * (len(rare) > 1)}."
    ]
    at = max((row for row in rows if _key(row) == _key(first)), key=_f1)
    lines.append(
        f"At p = {at.percentile}, its best F1, it flags {_share(at, 'flag_rate')} of the images; "
        f"{_share(at, 'precision')} of those are rare where {_share(at, 'base_rate')} of all are "
        f"(lift {at.metrics['lift'].value:.2f}), and {_share(at, 'recall')} of the rare are found."
    )
    if second is None:
        lines.append("No other detector was measured: add `random`, the control, and others.")
    else:
        said = _apart(first.metrics["auroc"], second.metrics["auroc"])
        lines.append(f"Next is {_called(second)} with {_text(second, 'auroc')}: {said}")
    return lines


def _best_rows(rows: Sequence[TableRow]) -> list[TableRow]:
    """Return the best row of each detector and network by AUROC, the highest first."""
    known = [row for row in rows if not math.isnan(row.metrics["auroc"].value)]
    found: dict[tuple[str, str], TableRow] = {}
    for row in sorted(known, key=lambda row: -row.metrics["auroc"].value):
        found.setdefault((row.embedder, row.detector), row)
    return list(found.values())


def _key(row: TableRow) -> tuple[str, str, int | None]:
    return row.embedder, row.detector, row.n_fit


def _f1(row: TableRow) -> float:
    return -1.0 if math.isnan(row.metrics["f1"].value) else row.metrics["f1"].value


def _called(row: TableRow) -> str:
    size = "" if row.n_fit is None else f", N = {row.n_fit:,}"
    return f"{row.detector} ({row.embedder}{size})"


def _text(row: TableRow, name: str) -> str:
    return metric_text(row.metrics[name], True)


def _share(row: TableRow, name: str) -> str:
    value = row.metrics[name].value
    return "–" if math.isnan(value) else f"{value:.1%}"


def _apart(first: Interval, second: Interval) -> str:
    """Say whether the order of two detectors is more than chance."""
    if math.isnan(first.low) or math.isnan(second.high):
        return "means have no interval; the tables below have those of each definition."
    if second.high < first.low:
        return "the intervals do not overlap, so the order of the two is not chance."
    return "the intervals overlap, so the order of the two may be chance."


def table_of(rows: Sequence[TableRow], caption: str) -> Table:
    """Return the detector table of a page."""
    columns = [Column(name, number=name in ("N", "p"), filter=True) for name in HEADS]
    columns += [Column(name, number=True) for name in METRICS.values()]
    return Table(caption, columns, [_cells(row) for row in rows])


def _cells(row: TableRow) -> list[Cell]:
    heads = [Cell(row.embedder), Cell(row.definition), Cell(row.detector)]
    heads.append(number_cell(size_text(row.n_fit), row.n_fit))
    heads.append(number_cell(f"{row.percentile}", row.percentile))
    return heads + [_metric(row.metrics[name], name in _WITH_INTERVAL) for name in METRICS]


def _metric(interval: Interval, with_interval: bool) -> Cell:
    text, _, small = metric_text(interval, with_interval).partition(" ")
    return number_cell(text, interval.value, small)


def classes_of(definition: RareDefinition, split: Split) -> str:
    """Return the names of the classes that are rare."""
    return few([split.classes[number] for number in definition.class_ids])


def caption(split: Split, row: int, definition: RareDefinition) -> str:
    """Return what is in an image: its labels, or how much of each rare class."""
    if not split.by_pixels:
        return split.caption(row)
    shares = {split.classes[c]: float(split.shares[row, c]) for c in definition.class_ids}
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    there = [f"{name} {share:.1%}" for name, share in ordered if share > 0]
    return few(there, 4) if there else f"no {few(list(shares), 2)}"


def leading(scores: Sequence[Scores], rare: np.ndarray) -> Scores | None:
    """Return the scores (first repeat) that rank the rare images best; ``None`` = none can."""

    def auroc(detector_scores: Scores) -> float:
        known = np.isfinite(detector_scores.test[0])
        return ranking_metrics(rare[known], detector_scores.test[0][known])["auroc"]

    ranked = [
        (value, detector_scores)
        for detector_scores in scores
        if not math.isnan(value := auroc(detector_scores))
    ]
    return max(ranked, key=lambda pair: pair[0])[1] if ranked else None
