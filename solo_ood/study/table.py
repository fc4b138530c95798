"""What a study found: a row for each arm, its accuracies and its paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from solo_ood.pages import markdown
from solo_ood.study.plan import Cell, Study
from solo_ood.study.statistics import Difference, holm, paired_difference

GROUPS = ("All", "Many", "Medium", "Few")
PROBES = {"linear": "linear probe", "knn": "k-NN"}  # the first is the main figure
Results = Mapping[Cell, Mapping[str, Any]]


@dataclass(frozen=True)
class Row:
    """An arm beside another one, in one group of classes.

    Attributes:
        difference: of the accuracies, in points.
        p_holm: p of ``difference``, corrected for all rows with the same probe and reference.
    """

    probe: str
    budget: str
    arm: str
    against: str
    group: str
    difference: Difference
    p_holm: float


def accuracies(results: Results, budget: str, arm: str, probe: str, group: str) -> dict[Any, float]:
    """Return the accuracy in % by pair of seed and class order."""
    return {
        cell.pair: result["accuracy"][probe][group]
        for cell, result in results.items()
        if (cell.budget, cell.arm) == (budget, arm) and group in result["accuracy"].get(probe, {})
    }


def differences(study: Study, results: Results) -> list[Row]:
    """Return all comparisons of which there is a pair, Holm-corrected by probe and reference."""
    found = []
    for probe in PROBES:
        for against in study.against:
            rows = list(_against(study, results, probe, against))
            for row, p in zip(rows, holm([row[-1].p for row in rows])):
                found.append(Row(*row, p))
    return found


def _against(
    study: Study, results: Results, probe: str, against: str
) -> Iterator[tuple[str, str, str, str, str, Difference]]:
    for budget in study.budgets:
        for arm in study.arms:
            for group in GROUPS if arm != against else ():
                one = accuracies(results, budget, arm, probe, group)
                other = accuracies(results, budget, against, probe, group)
                pairs = sorted(one.keys() & other.keys())
                if pairs:
                    values = [one[pair] for pair in pairs], [other[pair] for pair in pairs]
                    yield probe, budget, arm, against, group, paired_difference(*values)


def paired_table(study: Study, rows: Sequence[Row], probe: str, against: str) -> str:
    """Return the differences of one probe to one reference as Markdown."""
    lines = []
    for budget in study.budgets:
        for arm in study.arms:
            own = {
                row.group: row
                for row in rows
                if (row.probe, row.budget, row.arm, row.against) == (probe, budget, arm, against)
            }
            if own:
                cells = [difference_text(own[g]) if g in own else "–" for g in GROUPS]
                n = max(row.difference.n for row in own.values())
                lines.append([*_names(study, budget, arm), n, *cells])
    heads = [*_heads(study), "pairs", *GROUPS]
    return markdown.table(heads, lines)


def accuracy_table(study: Study, results: Results, probe: str) -> str:
    """Return mean accuracies in % and their standard deviations over the pairs as Markdown."""
    lines = []
    for budget in study.budgets:
        for arm in study.arms:
            found = [
                list(accuracies(results, budget, arm, probe, group).values()) for group in GROUPS
            ]
            if any(found):
                cells = [_mean(values) for values in found]
                lines.append([*_names(study, budget, arm), len(found[0]), *cells])
    return markdown.table([*_heads(study), "pairs", *GROUPS], lines)


REPLAY = {
    "flag rate, %": ("flag_rate", 100, 1),
    "lift": ("lift", 1, 2),
    "distinct images replayed": ("distinct_replayed", 1, 0),
    "replays each": ("replays_per_sample", 1, 1),
}


def replay_table(study: Study, results: Results) -> str:
    """Return what the detectors flagged and the queues replayed as Markdown."""
    rows = [[*names, *cells] for names, cells in replay_rows(study, results)]
    return markdown.table([*_heads(study), *REPLAY], rows)


def replay_rows(study: Study, results: Results) -> list[tuple[list[str], list[str]]]:
    """Return the names of each arm that replayed and its ``REPLAY``, means over the pairs."""
    lines = []
    for budget in study.budgets:
        for arm in study.arms:
            logged = _records(results, budget, arm, "logged")
            cells = []
            for name, scale, digits in REPLAY.values():
                values = [scale * one[name] for one in logged if name in one]
                cells.append(f"{np.mean(values):.{digits}f}" if values else "–")
            if set(cells) != {"–"}:
                lines.append((_names(study, budget, arm), cells))
    return lines


def exposure_table(study: Study, results: Results) -> str:
    """Return the rows trained on by rank of the class, fresh + replayed, means over the pairs.

    With the distinct images that were replayed of it. The class of rank 1 has the most images.
    """
    lines: list[list[object]] = []
    n_classes = 0
    for budget in study.budgets:
        for arm in study.arms:
            pairs = [one for one in _records(results, budget, arm, "classes") if one]
            if not pairs:
                continue
            n_classes = max(map(len, pairs))
            cells = []
            for rank in range(n_classes):
                own = [one[rank] for one in pairs if len(one) > rank]
                fresh, replayed, distinct = (
                    np.mean([record[key] for record in own])
                    for key in ("fresh", "replayed", "distinct")
                )
                text = f"{fresh:,.0f}"
                if replayed:
                    text += f" + {replayed:,.0f} ({distinct:.0f})"
                cells.append(text)
            lines.append([*_names(study, budget, arm), *cells])
    ranks = [f"class {rank + 1}" for rank in range(n_classes)]
    shown = _ends(n_classes)
    keep = len(_heads(study))
    rows = [[*line[:keep], *(line[keep + rank] for rank in shown)] for line in lines]
    return markdown.table([*_heads(study), *(ranks[rank] for rank in shown)], rows)


def _ends(n: int, most: int = 10) -> list[int]:
    """Return which classes are shown: all, or the first and last five."""
    return list(range(n)) if n <= most else [*range(5), *range(n - 5, n)]


def _records(results: Results, budget: str, arm: str, key: str) -> list[Any]:
    cells = [cell for cell in results if (cell.budget, cell.arm) == (budget, arm)]
    return [results[cell].get(key) or {} for cell in cells]


def _heads(study: Study) -> list[str]:
    return ["budget", "arm"] if len(study.budgets) > 1 else ["arm"]


def _names(study: Study, budget: str, arm: str) -> list[str]:
    return [budget, arm] if len(study.budgets) > 1 else [arm]


def difference_text(row: Row) -> str:
    """Return ``+1.2 [0.3, 2.1] p 0.06``; the interval and p are missing of a single pair."""
    mean, low, high, _, n = row.difference
    if n < 2:
        return f"{mean:+.1f}"
    p = f"{row.p_holm:.3f}" if row.p_holm < 0.095 else f"{row.p_holm:.2f}"
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}], p {p}"


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if values[1:] else "")
