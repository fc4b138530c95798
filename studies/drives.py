"""Thresholds on real drives, frame by frame in their own order, and on streams made to harm them.

    pip install 'solo-ood[benchmark]'
    python studies/drives.py --camvid CAMVID --embedder SPEC --figure docs/drives.png

CamVid's three drives follow each other. Scores are those of ``solo-ood stream`` (k-NN to the frames
before) and of parts that look like the persons marked in ten frames, in 20 draws. The made streams
have 120,000 samples. A perfect threshold flags the share 1 - p in every window, and of the rare
samples as many as the best fixed quantile chosen with hindsight.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ddsketch import DDSketch
from frames import arguments, judged
from river import anomaly, stats
from thresholds import SAMPLES, Stream, sequential, streams

from solo_ood.detection.detectors import DETECTORS
from solo_ood.pages import markdown
from solo_ood.selection.scorers import KNNScorer
from solo_ood.selection.threshold import FixedThreshold, QuotaThreshold, Threshold

# Scores (N,), p, block or window n -> flagged (N,) bool, judged (N,) bool, samples waited for (N,).
Verdicts = tuple[np.ndarray, np.ndarray, np.ndarray]
Judge = Callable[[np.ndarray, float, int], Verdicts]


def at_once(flagged: np.ndarray, warm: int) -> Verdicts:
    """Verdicts that come with the sample; the first ``warm`` samples get none."""
    known = np.arange(len(flagged)) >= warm
    return flagged & known, known, np.zeros(len(flagged))


def from_package(make: Callable[..., Threshold], scores: np.ndarray, p: float, n: int) -> Verdicts:
    threshold, count = make(p, n), len(scores)
    flagged, known, waited = np.zeros(count, bool), np.zeros(count, bool), np.zeros(count)
    for row, score in enumerate(torch.from_numpy(scores).float().split(1)):
        rows, verdicts = threshold.judge(score, torch.tensor([row]))
        flagged[rows], known[rows], waited[rows] = verdicts, True, row - rows
    return flagged, known, waited


def quota(scores: np.ndarray, p: float, n: int) -> Verdicts:
    return from_package(QuotaThreshold, scores, p, n)


def fixed(scores: np.ndarray, p: float, n: int) -> Verdicts:
    return from_package(FixedThreshold, scores, p, n)


def window(scores: np.ndarray, p: float, n: int) -> Verdicts:
    """Above the quantile of the n newest scores."""
    flagged = [
        row >= n and scores[row] > np.sort(scores[row - n : row])[int(n * p)]
        for row in range(len(scores))
    ]
    return at_once(np.array(flagged), n)


def tracking(scores: np.ndarray, p: float, n: int) -> Verdicts:
    """A level of the n newest scores that moves with every verdict (adaptive conformal)."""
    assert p == P_OF["tracking"]  # `sequential` has it built in
    return at_once(sequential(n, 0.005, scores, 1), n)


def conformal_pid(scores: np.ndarray, p: float, n: int) -> Verdicts:
    """A level that moves by the error and its sum, in units of the range of the n newest scores.

    Quantile tracking with the saturating integrator of conformal PID (Angelopoulos et al., 2023),
    without its forecaster.
    """
    flagged, level, total = np.zeros(len(scores), bool), float(np.quantile(scores[:n], p)), 0.0
    for row in range(n, len(scores)):
        spread = np.ptp(scores[row - n : row])
        steps = row - n + 1
        angle = np.clip(total * np.log(steps + 1) / (5 * (steps + 1)), -1.5, 1.5)
        flagged[row] = scores[row] > level + spread * np.tan(angle)
        error = float(flagged[row]) - (1 - p)
        level, total = level + 0.1 * spread * error, total + error
    return at_once(flagged, n)


def river_filter(scores: np.ndarray, p: float, n: int) -> Verdicts:
    """``river.anomaly.QuantileFilter``: the P-square estimate of a quantile of all scores."""
    found = anomaly.QuantileFilter(anomaly.HalfSpaceTrees(), q=p)  # the trees are not used
    assert isinstance(found.quantile, stats.Quantile)
    flagged = np.zeros(len(scores), bool)
    for row, score in enumerate(scores.tolist()):
        flagged[row] = row > 0 and found.classify(score)
        found.quantile.update(score)
    return at_once(flagged, n)


def sketch(scores: np.ndarray, p: float, n: int) -> Verdicts:
    """A DDSketch of all scores, within 1 % of their quantile."""
    found, flagged = DDSketch(0.01), np.zeros(len(scores), bool)
    for row, score in enumerate(scores.tolist()):
        flagged[row] = row > 0 and score > found.get_quantile_value(p)
        found.add(score)
    return at_once(flagged, n)


JUDGES: dict[str, Judge] = {
    "quota (default)": quota,
    "fixed": fixed,
    "window": window,
    "tracking": tracking,
    "conformal PID": conformal_pid,
    "river QuantileFilter": river_filter,
    "ddsketch": sketch,
}
P_OF = {"tracking": 0.95}


@dataclass(frozen=True)
class Asked:
    """A stream, or several draws of it, and what is asked of a threshold there."""

    name: str
    draws: list[Stream]
    p: float
    n: int
    window: int


def adversary(seed: int) -> Stream:
    """Scores that rise for as long as a level follows them, then fall below all of them."""
    rng = np.random.default_rng(seed)
    rare = rng.random(SAMPLES) < 0.05
    phase = (np.arange(SAMPLES) % 3000) / 3000
    ramp = np.where(phase < 0.5, 40 * phase, -20.0)
    return Stream(rng.normal(size=SAMPLES) + 2 * rare + ramp, rare)


def in_turn(seed: int) -> Stream:
    """Ten classes, one after the other, each with its own usual score; few samples are rare."""
    rng = np.random.default_rng(seed)
    rare = rng.random(SAMPLES) < 0.05
    usual = rng.normal(size=SAMPLES // 6000) * 3
    return Stream(rng.normal(size=SAMPLES) + 2 * rare + np.repeat(usual, 6000), rare)


def drives(parser_args: object) -> list[Asked]:
    """The real ones, one after the other."""
    data = judged(parser_args)  # type: ignore[arg-type]  (a Namespace)
    order = np.argsort([path.stem for path in data.frames.paths])
    scorer, scores = KNNScorer(data.unit.shape[1], 256, None, 16), []
    for row in torch.from_numpy(data.unit[order]).float().split(1):
        scores.append(float(scorer.ood_score(row)) if scorer.ready else 0.0)
        scorer.partial_fit(row)
    rare = data.rare[order]
    marked = [
        Stream(
            DETECTORS["exemplar-regions"].fit(data.feats, 0)(data.feats, data.marked(rows))[order],
            rare,
        )
        for rows in data.draws
    ]
    about = (0.8, 50, 100)
    return [
        Asked("drives, k-NN", [Stream(np.array(scores), rare)], *about),
        Asked("drives, marked persons", marked, *about),
    ]


def made() -> list[Asked]:
    kinds = [streams(seed) for seed in range(3)]
    named = {kind: [found[kind] for found in kinds] for kind in ("jumps", "moving teacher")}
    named["classes in turn"] = [in_turn(seed) for seed in range(3)]
    named["adversary"] = [adversary(seed) for seed in range(3)]
    return [Asked(name, draws, 0.95, 2000, 1024) for name, draws in named.items()]


def measure(judge: Judge, stream: Stream, asked: Asked) -> dict[str, float]:
    began = time.process_time()
    flagged, known, waited = judge(stream.scores, asked.p, asked.n)
    seconds = (time.process_time() - began) / len(stream.scores)
    flags, scores, rare = flagged[known], stream.scores[known], stream.rare[known]
    upto = np.concatenate(([0], np.cumsum(flags)))
    w = asked.window
    best = scores > np.sort(scores)[int(len(scores) * asked.p)]
    return {
        "rate": flags.mean(),
        "worst window": np.abs((upto[w:] - upto[:-w]) / w - (1 - asked.p)).max(),
        "recall": (flags & rare).sum() / max(1, (best & rare).sum()),
        "delay": waited[known].mean(),
        "microseconds": 1e6 * seconds,
    }


def bytes_of(judge: Judge) -> float:
    """What 2,000 more scores leave behind, at most, in kB."""
    scores = np.random.default_rng(0).normal(size=6000)
    judge(scores[:100], 0.95, 20)  # what is imported or cached once
    tracemalloc.start()
    judge(scores, 0.95, 2000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 1e3


def draw(asked: Asked, path: Path) -> None:
    """Flag rate of the windows over the drive, and where the rare frames are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axis = figure.subplots()
    stream, w = asked.draws[0], asked.window
    axis.fill_between(
        np.arange(len(stream.rare)), stream.rare, step="mid", color="0.88", label="rare frames"
    )
    for name, judge in JUDGES.items():
        if P_OF.get(name, asked.p) != asked.p:
            continue
        flagged, known, _ = judge(stream.scores, asked.p, asked.n)
        upto = np.concatenate(([0], np.cumsum(flagged)))
        ends = np.arange(np.flatnonzero(known)[0] + w, np.flatnonzero(known)[-1] + 2)
        axis.plot(ends, (upto[ends] - upto[ends - w]) / w, label=name,
                  lw=3 if "default" in name else 1.2)  # fmt: skip
    axis.axhline(1 - asked.p, color="k", ls=":", lw=1)
    axis.set(xlabel="frame of the drives", ylabel=f"flagged, of the last {w} frames", ylim=(0, 1))
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--figure", type=Path, default=Path("study/drives.png"))
    args = parser.parse_args()
    args.draws = 20
    torch.set_num_threads(1)
    real = drives(args)
    draw(real[1], args.figure)
    asked = [*real, *made()]
    rows, costs = [], []
    for name, judge in JUDGES.items():
        cells, delays = [], []
        for stream in asked:
            if P_OF.get(name, stream.p) != stream.p:
                cells.append("–")
                continue
            found = [measure(judge, one, stream) for one in stream.draws]
            mean = {key: np.mean([f[key] for f in found]) for key in found[0]}
            worst = max(f["worst window"] for f in found)
            cells.append(f"{mean['rate']:.3f} / {worst:.2f} / {mean['recall']:.2f}")
            delays.append((mean["delay"], mean["microseconds"]))
        rows.append([name, *cells])
        delay, micro = delays[-1]
        costs.append([name, f"{delay:.0f}", f"{micro:.0f}", f"{bytes_of(judge):.0f}"])
    print(f"{len(real[0].draws[0].scores)} frames, base rate {real[0].draws[0].rare.mean():.3f}\n")
    print(markdown.table(["rate / worst window / recall", *(a.name for a in asked)], rows))
    print()
    print(markdown.table(["", "mean wait, samples", "µs a sample", "kB at most"], costs))


if __name__ == "__main__":
    main()
