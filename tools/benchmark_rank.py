"""What ranking costs once images are embedded: seconds and memory, on synthetic features.

``python tools/benchmark_rank.py``: 100,000 images of 384 features, in clips as frames are.
Each step runs in a process of its own, so that its largest memory is its own, too.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from argparse import ArgumentParser
from collections.abc import Callable

import numpy as np

from solo_ood.detection.detectors import DETECTORS
from solo_ood.detection.feats import Feats
from solo_ood.mining.cross_fit import cross_fitted, groups_of
from solo_ood.mining.scenes import choose, usual_distance
from solo_ood.pages import markdown

CLIP = 200  # images


def features(n: int, dim: int) -> np.ndarray:
    """Return (n, dim) float32 of length 1: clips of neighbours that are alike."""
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(-(-n // CLIP), dim)).astype(np.float32), CLIP, axis=0)[:n]
    rows += 0.7 * rng.normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def ranked(name: str, rows: np.ndarray) -> None:
    clips = [f"{row // CLIP}" for row in range(len(rows))]
    known = Feats(rows[:10].copy()) if DETECTORS[name].exemplars else None
    cross_fitted(DETECTORS[name], Feats(rows), groups_of(clips, None), known)


def scenes(rows: np.ndarray) -> None:
    scores = np.random.default_rng(0).random(len(rows))
    choose(scores, rows, [""] * len(rows), 500, usual_distance(rows))


STEPS: dict[str, Callable[[np.ndarray], None]] = {
    "the features alone": lambda rows: None,
    "exemplar": lambda rows: ranked("exemplar", rows),
    "knn": lambda rows: ranked("knn", rows),
    "mahalanobis": lambda rows: ranked("mahalanobis", rows),
    "500 scenes": scenes,
}


def measured(step: str, n: int, dim: int) -> tuple[float, float, float]:
    """Return seconds, those of all cores, and GB of the process at most, imports included."""
    rows = features(n, dim)
    import torch  # noqa: F401  (not a part of what is timed)

    ranked("exemplar", rows[:2000])
    begin, busy = time.perf_counter(), time.process_time()
    STEPS[step](rows)
    seconds, cores = time.perf_counter() - begin, time.process_time() - busy
    return seconds, cores, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    asked = parser.parse_args()
    print(
        markdown.head([f"{asked.images:,} x {asked.dim}", "s", "CPU s", "GB at most"]), flush=True
    )
    for step in asked.steps:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, cores, memory = pool.apply(measured, (step, asked.images, asked.dim))
        print(markdown.row([step, f"{seconds:.1f}", f"{cores:.1f}", f"{memory:.1f}"]), flush=True)


if __name__ == "__main__":
    main()
