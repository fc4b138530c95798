"""Compare thresholds over batch sizes and kinds of streams: ``python studies/thresholds.py``.

Prints the tables of docs/thresholds.md and writes its figure. Besides the two that the package has,
it holds the ones that were tried: a window's quantile, and levels that follow the flag rate.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from solo_ood.pages import markdown
from solo_ood.selection.threshold import FixedThreshold, QuotaThreshold

P, RARE, SAMPLES, WINDOW, WARM = 0.95, 0.05, 120_000, 1024, 256
BATCHES = (8, 24, 96, 384, 768, 1536, 8192)
SKIPPED = 16_384  # samples at the beginning, of warm-ups and of a first batch of any size
OPEN = 4096  # samples at the end, which may be in a block that is not full
Judge = Callable[[np.ndarray, int], np.ndarray]  # scores (N,) in batches: flagged (N,) bool


def from_package(threshold: type, n: int, scores: np.ndarray, batch: int) -> np.ndarray:
    """Flags of one of this package's thresholds; what is not judged at the end is not flagged."""
    judge, flagged = threshold(P, n), np.zeros(len(scores), dtype=bool)
    items = torch.arange(len(scores))
    for part, places in zip(torch.from_numpy(scores).split(batch), items.split(batch)):
        judged, verdicts = judge.judge(part, places)
        flagged[judged.numpy()] = verdicts.numpy()
    return flagged


def windows(scores: np.ndarray, batch: int, n: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield each batch's place and the n scores before it in ascending order, once warm."""
    finite = np.nan_to_num(scores, nan=-np.inf)
    for start in range(0, len(scores), batch):
        if start >= WARM:
            yield slice(start, start + batch), np.sort(finite[max(0, start - n) : start])


def window(n: int, scores: np.ndarray, batch: int) -> np.ndarray:
    """The quantile of the n newest scores."""
    flagged = np.zeros(len(scores), dtype=bool)
    for place, ordered in windows(scores, batch, n):
        flagged[place] = scores[place] > ordered[int(len(ordered) * P)]
    return flagged


def _quantile(ordered: np.ndarray, level: float) -> float:
    rank = int(np.floor(len(ordered) * level))
    return np.inf if rank >= len(ordered) else -np.inf if rank < 0 else ordered[rank]


def tracking(n: int, eta: float, scores: np.ndarray, batch: int) -> np.ndarray:
    """One level for a batch, then a step for every sample of it."""
    flagged, excess = np.zeros(len(scores), dtype=bool), 0.0
    for place, ordered in windows(scores, batch, n):
        flagged[place] = scores[place] > _quantile(ordered, P + eta * excess)
        excess += flagged[place].sum() - (1 - P) * np.isfinite(scores[place]).sum()
    return flagged


def sequential(n: int, eta: float, scores: np.ndarray, batch: int) -> np.ndarray:
    """The same with a step after every sample, also inside of a batch."""
    flagged, level = np.zeros(len(scores), dtype=bool), P
    for place, ordered in windows(scores, batch, n):
        ranks = np.searchsorted(ordered, scores[place], side="left") / len(ordered)
        verdicts = []
        for rank, finite in zip(ranks.tolist(), np.isfinite(scores[place]).tolist()):
            verdicts.append(finite and rank > level)
            level += eta * (verdicts[-1] - (1 - P)) * finite
        flagged[place] = verdicts
    return flagged


def damped(n: int, scores: np.ndarray, batch: int) -> np.ndarray:
    """A gain of 1 / (n + batch), stable at any batch; the batch is in the window that judges it."""
    flagged, excess = np.zeros(len(scores), dtype=bool), 0.0
    finite = np.nan_to_num(scores, nan=-np.inf)
    for start in range(0, len(scores), batch):
        place = slice(start, start + batch)
        ordered = np.sort(finite[max(0, start + batch - max(n, batch)) : start + batch])
        flagged[place] = scores[place] > _quantile(ordered, P + excess / (n + batch))
        excess += flagged[place].sum() - (1 - P) * np.isfinite(scores[place]).sum()
    return flagged


JUDGES: dict[str, Judge] = {
    "fixed, n = 1024": partial(from_package, FixedThreshold, 1024),
    "window, n = 1024": partial(window, 1024),
    "tracking, eta = .005": partial(tracking, 1024, 0.005),
    "tracking, sample by sample": partial(sequential, 1024, 0.005),
    "tracking, damped, n = 2000": partial(damped, 2000),
    "quota, n = 1024": partial(from_package, QuotaThreshold, 1024),
    "quota, n = 2000 (default)": partial(from_package, QuotaThreshold, 2000),
}


@dataclass(frozen=True)
class Stream:
    """Scores (N,) and which samples are rare (N,)."""

    scores: np.ndarray
    rare: np.ndarray


def streams(seed: int) -> dict[str, Stream]:
    rng = np.random.default_rng(seed)
    rare, t = rng.random(SAMPLES) < RARE, np.arange(SAMPLES)
    noise = rng.normal(size=SAMPLES)
    noisy = noise + 2.0 * rare
    # A teacher that moves: level and spread of all scores wander.
    walk = np.cumsum(rng.normal(size=SAMPLES)) / 100
    return {
        "perfect score": Stream(rng.random(SAMPLES) + 2 * rare, rare),
        "noisy score": Stream(noisy, rare),
        "unrelated score": Stream(noise, rare),
        "drift": Stream(noisy + t / 2000, rare),
        "jumps": Stream(noisy + 6 * ((t // 7001) % 2), rare),
        "moving teacher": Stream(noisy * np.exp(walk / 4) + walk, rare),
        "ties (5 values)": Stream(np.clip(np.round(noisy), -1, 3), rare),
        "7 % NaN": Stream(np.where(rng.random(SAMPLES) < 0.07, np.nan, noisy), rare),
    }


def measure(flagged: np.ndarray, stream: Stream, batch: int) -> dict[str, float]:
    """What docs/thresholds.md asks of a threshold, of the samples that could be judged."""
    judged = np.isfinite(stream.scores)
    judged[:SKIPPED] = False
    judged[SAMPLES - OPEN :] = False
    flagged, scores, rare = flagged[judged], stream.scores[judged], stream.rare[judged]
    upto = np.concatenate(([0], np.cumsum(flagged)))
    steps = flagged[: len(flagged) // batch * batch].reshape(-1, batch).mean(axis=1)
    best = scores > np.sort(scores)[int(len(scores) * P)]  # fixed, with hindsight
    recall = (flagged & rare).sum() / max(1, (best & rare).sum())
    precision = (rare[flagged].mean() if flagged.any() else 0.0) / rare[best].mean()
    return {
        "rate": flagged.mean(),
        "worst window": np.abs((upto[WINDOW:] - upto[:-WINDOW]) / WINDOW - (1 - P)).max(),
        "SD of steps": steps.std() / np.sqrt(P * (1 - P) / batch),
        "empty steps": (steps == 0).mean(),
        "recall": recall,
        "lift": precision,
    }


def cell(name: str, kind: str, batch: int, seeds: int) -> dict[str, float]:
    torch.set_num_threads(1)
    rows = []
    for seed in range(seeds):
        stream = streams(seed)[kind]
        rows.append(measure(JUDGES[name](stream.scores, batch), stream, batch))
    worst = {"worst window"}
    return {k: (max if k in worst else np.mean)([row[k] for row in rows]) for k in rows[0]}


def table(results: dict, kind: str, quantity: str, form: str) -> str:
    """One quantity of all thresholds over the batch sizes, as Markdown."""
    rows = [
        [name, *(form.format(results[name, kind, batch][quantity]) for batch in BATCHES)]
        for name in JUDGES
    ]
    return markdown.table([f"{kind}: {quantity}", *(f"{batch:,}" for batch in BATCHES)], rows)


def summary(results: dict, kinds: list[str]) -> str:
    """The worst over all batch sizes, by stream."""
    rows = []
    for name in JUDGES:
        cells = []
        for kind in kinds:
            of = [results[name, kind, batch] for batch in BATCHES]
            rate = max((figures["rate"] for figures in of), key=lambda x: abs(x - (1 - P)))
            window = max(figures["worst window"] for figures in of)
            recall = min(min(figures["recall"], figures["lift"]) for figures in of)
            cells.append(f"{rate:.3f} / {window:.3f} / {recall:.2f}")
        rows.append([name, *cells])
    return markdown.table(["worst over the batch sizes", *kinds], rows)


def draw(results: dict, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for axis, kind, quantity, title in (
        (left, "perfect score", "recall", "recall of a perfect score,\nbest fixed quantile = 1"),
        (middle, "unrelated score", "SD of steps", "SD of a step's flag rate,\nbinomial = 1"),
        (
            right,
            "jumps",
            "worst window",
            "worst error of 1,024 samples in a row,\nscores that jump",
        ),
    ):
        for name in JUDGES:
            values = [results[name, kind, batch][quantity] for batch in BATCHES]
            axis.plot(BATCHES, values, marker=".", label=name, lw=3 if "default" in name else 1)
        axis.set(xscale="log", xlabel="fresh samples of a step, all processes", title=title)
        axis.title.set_fontsize(9)
        axis.grid(alpha=0.3)
    middle.set_yscale("log")
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--figure", type=Path, default=Path("study/thresholds.png"))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    kinds = list(streams(0))
    keys = [(name, kind, batch) for name in JUDGES for kind in kinds for batch in BATCHES]
    with ProcessPoolExecutor() as pool:
        results = dict(zip(keys, pool.map(cell, *zip(*keys), [args.seeds] * len(keys))))
    for kind, quantity, form in (
        ("perfect score", "recall", "{:.2f}"),
        ("noisy score", "recall", "{:.2f}"),
        ("unrelated score", "SD of steps", "{:.2f}"),
        ("unrelated score", "empty steps", "{:.0%}"),
    ):
        print(table(results, kind, quantity, form), end="\n\n")
    print("Flag rate / worst window of 1,024 / recall or lift, the smaller\n")
    print(summary(results, kinds))
    draw(results, args.figure)


if __name__ == "__main__":
    main()
