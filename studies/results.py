"""What both kinds of data are judged by: the metrics, the draws, results on disk, the table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats

from solo_ood.evaluation.ranking import ranking_metrics, top_lift
from solo_ood.pages import markdown

N_EXEMPLARS, DRAWS = 10, 20
Numbers = dict[str, list[list[float]]]  # detector -> one row a seed or draw -> the metrics


def quality(rare: np.ndarray, scores: np.ndarray, share: float) -> list[float]:
    """Return lift at ``share`` flagged, AUROC, and average precision / base rate."""
    ranking = ranking_metrics(rare, scores)
    return [top_lift(rare, scores, share), ranking["auroc"], ranking["ap"] / rare.mean()]


def resumed(path: Path, names: list[str], compute: Callable[[list[str]], Numbers]) -> Numbers:
    """Return the numbers of ``names`` from disk, computing those that are not there."""
    known: Numbers = json.loads(path.read_text()) if path.is_file() else {}
    missing = [name for name in names if name not in known]
    if missing:
        print(f"{path.stem}: {len(missing)} detectors", file=sys.stderr, flush=True)
        known |= compute(missing)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known))
    return {name: known[name] for name in names}


def draws_of(pool: np.ndarray, count: int = N_EXEMPLARS) -> list[np.ndarray]:
    rngs = [np.random.default_rng(draw) for draw in range(DRAWS)]
    return [rng.choice(pool, min(count, len(pool)), replace=False) for rng in rngs]


def table(title: str, columns: dict[str, Numbers], metrics: dict[str, int]) -> str:
    """Return Markdown: mean +- 95 % t-interval over seeds or draws; the best mean in bold."""
    cells: dict[str, list[str]] = {}
    heads = [f"{column} {metric}".strip() for column in columns for metric in metrics]
    for numbers in columns.values():
        for index in metrics.values():
            values = {name: np.array(rows)[:, index] for name, rows in numbers.items()}
            best = max(values, key=lambda name: values[name].mean())
            for name, one in values.items():
                text = f"{one.mean():.2f}"
                if np.ptp(one) > 0:
                    text += f" ± {stats.sem(one) * stats.t.ppf(0.975, len(one) - 1):.2f}"
                cells.setdefault(name, []).append(f"**{text}**" if name == best else text)
    return markdown.table([title, *heads], [[name, *row] for name, row in cells.items()])
