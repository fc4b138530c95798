"""Whether replay can help: precision and lift with intervals, and what speaks against it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from solo_ood.errors import message

# Replays of an image in an epoch, in the mean of those that are replayed, above which few images
# are seen too often. A perfect detector whose replays were 5 to 6 an epoch lost to random replay.
MAX_PER_EPOCH = 4.0
MIN_REPLAY_SHARE = 0.9  # share of the steps with a replay, below which the queue starves
MIN_STEPS = 50  # steps from which on these say something
MAX_DISTINCT = 65_536  # samples that are counted; a stream without an end must not fill the memory
CONTROLS = ("random", "random-fresh")  # whose lift is 1 by intent
_Z = 1.959964  # of 95 % of a normal distribution


class SelfCheck:
    """The distinct samples that were flagged, those of them that are rare, and those replayed.

    A sample is judged again in every epoch. Its verdicts are no independent evidence, so intervals
    count each sample once, and no more of them than the first ``MAX_DISTINCT``. A checkpoint holds
    8 bytes for each.
    """

    def __init__(self) -> None:
        self._flagged: set[int] = set()
        self._rare: set[int] = set()
        self._rare_replayed: set[int] = set()

    def note_flagged(self, indexes: Iterable[int], rare: Iterable[bool]) -> None:
        """Take in flagged samples, and whether each is rare by its label."""
        for index, is_rare in zip(indexes, rare):
            room = len(self._flagged) < MAX_DISTINCT or index in self._flagged
            if room and index >= 0:  # of -1 it is not known any more which sample it was
                self._flagged.add(index)
                if is_rare:
                    self._rare.add(index)

    def note_replayed(self, indexes: Iterable[int]) -> None:
        """Take in the samples of one step's replays."""
        self._rare_replayed.update(self._rare.intersection(indexes))

    def metrics(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Return precision and lift over the run, their 95 % intervals, and the rare replayed.

        The intervals are Wilson's (1927) for a share of as many independent samples as distinct
        ones were flagged: what the detector would do on other samples of the same stream. The base
        rate, of all judged samples, is taken as known.

        Args:
            counts: ``judged``, ``flagged``, ``rare`` and ``flagged_rare`` samples so far, and what
                of the first two (``judged_before``, ``flagged_before``) was so while other classes
                were the rare ones.
        """
        judged = counts["judged"] - counts["judged_before"]
        flagged = counts["flagged"] - counts["flagged_before"]
        if not (flagged and counts["rare"]):
            return {}
        precision, base_rate = counts["flagged_rare"] / flagged, counts["rare"] / judged
        per_base_rate = 1 / base_rate
        found = {"precision": precision, "lift": precision / base_rate, "base_rate": base_rate}
        if self._flagged:  # not of a checkpoint of before
            low, high = wilson_interval(precision, len(self._flagged))
            found["precision_low"], found["precision_high"] = low, high
            found["lift_low"], found["lift_high"] = low * per_base_rate, high * per_base_rate
            found["distinct_rare_replayed"] = float(len(self._rare_replayed))
        return found

    @property
    def distinct_flagged(self) -> int:
        """Number of distinct samples that were flagged."""
        return len(self._flagged)

    def state_dict(self) -> dict[str, Any]:
        """Tensors only, so that ``torch.load`` reads it in its safe mode."""
        sets = {
            "flagged": self._flagged,
            "rare": self._rare,
            "rare_replayed": self._rare_replayed,
        }
        return {name: torch.tensor(sorted(of), dtype=torch.int64) for name, of in sets.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore ``state_dict``."""
        self._flagged, self._rare, self._rare_replayed = (
            set(state[name].tolist()) for name in ("flagged", "rare", "rare_replayed")
        )


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share of n samples (Wilson, 1927); in [0, 1]."""
    centre = share + _Z**2 / (2 * n)
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def replay_warning(counts: Mapping[str, int]) -> str | None:
    """Return what to say of a run that replayed in too few of the steps in which it could have."""
    due, done = counts["replay_due"], counts["replay_done"]
    if due < MIN_STEPS or done >= MIN_REPLAY_SHARE * due:
        return None
    return message(
        "replay",
        expected=f"rows in at least {MIN_REPLAY_SHARE:.0%} of the steps",
        got=f"{done / due:.0%} of {due} steps; the queue held too few samples in the others",
        remedy="Lower ood.mix.ratio or ood.threshold.percentile, or raise ood.queue.max_replays.",
    )


def help_warnings(metrics: Mapping[str, float], scorer: str, steps: int) -> list[str]:
    """Return why replay cannot be expected to help the rare classes; [] if nothing says so.

    Args:
        metrics: what the selector logs.
        scorer: its name: of a random control nothing is expected.
        steps: since the selector began.
    """
    if steps < MIN_STEPS:
        return []
    found = []
    low = metrics.get("lift_low", math.inf)
    if low <= 1 and scorer not in CONTROLS:
        interval = f"95 % interval {low:.2f} to {metrics['lift_high']:.2f}"
        found.append(
            message(
                "lift",
                expected="a 95 % interval above 1: what is flagged is rare more often than the "
                "stream",
                got=f"{metrics['lift']:.2f}, {interval}",
                remedy="Replay of it is no better than random replay: take another scorer, name "
                "exemplars (ood=exemplar), or train without (ood=off).",
            )
        )
    often = metrics.get("replays_per_epoch", 0.0)
    if often > MAX_PER_EPOCH:
        found.append(
            message(
                "replays of a sample in an epoch",
                expected=f"at most {MAX_PER_EPOCH:g} in the mean of those that are replayed",
                got=f"{often:.1f}",
                remedy="So few are learnt by heart: set ood.queue.max_replays_per_epoch, or lower "
                "ood.mix.ratio, or ood.threshold.percentile, which flags more.",
            )
        )
    return found
