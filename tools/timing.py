"""Time things against each other in one run: calls in turns, medians, ratios with intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


def in_turns(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Return the seconds of each call in every round, all of them called in turns.

    The order is drawn anew in each round: what one call leaves in the caches is not always left to
    the same other one. The first round warms up and is not counted.
    """
    rng = np.random.default_rng(seed)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name in rng.permutation(list(calls)).tolist():
            start = clock()
            calls[name]()
            if turn:
                seconds[name].append(clock() - start)
    return seconds


def medians(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the median seconds of each call, all of them called in turns."""
    seconds = in_turns(calls, rounds, clock)
    return {name: float(np.median(values)) for name, values in seconds.items()}


@dataclass(frozen=True)
class Ratio:
    """A median ratio and its 95 % interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def paired_ratio(
    values: Sequence[float], base: Sequence[float], draws: int = 2000, seed: int = 0
) -> Ratio:
    """Return the median of ``values / base``, pair by pair, with a bootstrap interval.

    Pairs from the same round: what slows the machine down for a while slows both.
    """
    ratios = np.asarray(values, float) / np.asarray(base, float)
    drawn = np.random.default_rng(seed).integers(len(ratios), size=(draws, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), [2.5, 97.5])
    return Ratio(float(np.median(ratios)), float(low), float(high))
