"""Thresholds: which scores of a stream are flagged.

Thresholds work on the host, on scores that were copied there: they add nothing to the training
step, and every process that feeds the same scores gets the same verdicts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from solo_ood.errors import unknown_name
from solo_ood.settings.block import block_size, flag_rate
from solo_ood.settings.choices import THRESHOLDS, build
from solo_ood.settings.schema import ThresholdConfig

WINDOW = 1024  # judged samples of the windows whose flag rate is watched
_GOLDEN_RATIO = (5**0.5 - 1) / 2  # its multiples are spread evenly over [0, 1)


class Threshold(ABC):
    """Base class: ``judge`` takes streamed scores and returns the verdicts that are known by now.

    Scores must be streamed or held out (taken before the sample was learnt): a quantile of the
    scores of a scorer's own training samples says nothing about new ones. The verdicts depend on
    the order of the samples, never on how they are cut into batches.

    Args:
        percentile: p in (0, 1); the share 1 - p of the stream is flagged.
        n: samples of a block; ``None`` = as many as hold 100 flags.
        upper_percentile: u in (p, 1); flagged are the scores between p and u, the share u - p, and
            the highest are left out as junk; ``None`` = 1, none is.

    Attributes:
        rate: the share of the stream that is flagged, u - p.
        n_judged, n_flagged: samples so far.
        worst_window: |flag rate - rate| of the worst ``WINDOW`` judged samples in a row so far.
        n_waiting: samples that wait for their verdict.
        block: (n,) float32, scores of the last complete block in ascending order; none at first.
    """

    def __init__(
        self,
        percentile: float = 0.95,
        n: int | None = None,
        upper_percentile: float | None = None,
    ) -> None:
        self.percentile, self.upper_percentile = percentile, upper_percentile
        self.rate = flag_rate(percentile, upper_percentile)
        self.n = block_size(percentile, upper_percentile) if n is None else n
        self.n_judged = 0
        self.n_flagged = 0
        self.worst_window = 0.0
        self.n_waiting = 0
        # Scores and items of the waiting samples, as they came: joined at a block's end only.
        self._chunks: list[tuple[Tensor, Tensor]] = []
        self.block = torch.zeros(0, dtype=torch.float32)
        self._tail = torch.zeros(0, dtype=torch.int64)  # the newest verdicts, at most WINDOW - 1

    def judge(self, scores: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Take in scores and return the samples judged by now, oldest first.

        Args:
            scores: (N,) on the CPU; rows with NaN or Inf are left out, and never judged.
            items: (N, ...) what stands for the samples, such as their indexes.

        Returns:
            ``items`` (M, ...) of the judged samples, which may have come in earlier calls, and
            whether each is flagged, (M,) bool.
        """
        finite = scores.isfinite()
        if finite.any():
            self._chunks.append((scores[finite].float(), items[finite]))
            self.n_waiting += len(self._chunks[-1][0])
        if self.n_waiting < self._n_needed:
            return items[:0], torch.zeros(0, dtype=torch.bool)
        scores, items = self._waiting_scores_and_items()
        verdicts = []
        while True:
            flagged = self._verdicts(scores)
            if len(flagged) == 0:
                break
            verdicts.append(flagged)
            self.n_judged += len(flagged)
            self.n_flagged += int(flagged.sum())
            scores = scores[len(flagged) :]
        done = len(items) - len(scores)
        # Copies: views would keep alive what was judged.
        self._chunks, self.n_waiting = [(scores.clone(), items[done:].clone())], len(scores)
        flagged = torch.cat(verdicts) if verdicts else torch.zeros(0, dtype=torch.bool)
        self._update_worst_window(flagged)
        return items[:done], flagged

    @property
    def _n_needed(self) -> int:
        """Waiting samples from which on some can be judged."""
        return self.n

    def _waiting_scores_and_items(self) -> tuple[Tensor, Tensor]:
        """Return the scores (W,) and items (W, ...) of the waiting samples, oldest first."""
        if not self._chunks:
            return torch.zeros(0, dtype=torch.float32), torch.zeros(0, dtype=torch.int64)
        if len(self._chunks) > 1:
            scores, items = zip(*self._chunks)
            self._chunks = [(torch.cat(scores), torch.cat(items))]
        return self._chunks[0]

    @property
    def waiting(self) -> Tensor:
        """Items (W, ...) of the samples that wait for their verdict, oldest first."""
        return self._waiting_scores_and_items()[1]

    def replace_waiting(self, items: Tensor) -> None:
        """Replace the items (W, ...) of the samples that wait for their verdict."""
        self._chunks = [(self._waiting_scores_and_items()[0], items)]

    @abstractmethod
    def _verdicts(self, scores: Tensor) -> Tensor:
        """Return the verdicts on the oldest M of the waiting ``scores`` (N,): (M,) bool, M >= 0."""

    @property
    def undecided(self) -> Tensor:
        """Items (M, ...) of the waiting samples that may still be flagged."""
        return self.waiting

    @property
    def threshold(self) -> float:
        """The ``percentile`` of the last block; NaN before the first."""
        return self.quantile(self.percentile)

    def quantile(self, level: float) -> float:
        """Return the smallest score that at least the share ``level`` of the block do not exceed.

        -inf for a level of 0, NaN before the first block. (Hyndman and Fan, 1996, type 1.)
        """
        if len(self.block) == 0:
            return float("nan")
        rank = math.ceil(Fraction(str(level)) * len(self.block))
        return float(self.block[rank - 1]) if rank > 0 else float("-inf")

    @property
    @abstractmethod
    def rate_bound(self) -> float:
        """How far the flag rate of all samples judged can be from its target; NaN if unbounded."""

    def _update_worst_window(self, flagged: Tensor) -> None:
        """Look at every window that ends with one of the new verdicts."""
        if len(flagged) == 0:
            return
        verdicts = torch.cat((self._tail, flagged.long()))
        self._tail = verdicts[-(WINDOW - 1) :].clone()
        if len(verdicts) >= WINDOW:
            upto = torch.nn.functional.pad(verdicts.cumsum(0), (1, 0))
            rates = (upto[WINDOW:] - upto[:-WINDOW]) / WINDOW
            error = float((rates - float(self.rate)).abs().max())
            self.worst_window = max(self.worst_window, error)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers only, so that ``torch.load`` reads it in its safe mode."""
        return {
            "n_judged": self.n_judged,
            "n_flagged": self.n_flagged,
            "worst_window": self.worst_window,
            "scores": self._waiting_scores_and_items()[0],
            "waiting": self.waiting,
            "block": self.block,
            "tail": self._tail,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.n_judged, self.n_flagged = state["n_judged"], state["n_flagged"]
        self.worst_window = state["worst_window"]
        self._chunks, self.n_waiting = [(state["scores"], state["waiting"])], len(state["scores"])
        self.block, self._tail = state["block"], state["tail"]


class QuotaThreshold(Threshold):
    """Flags exactly the top share 1 - p of every block of ``n`` samples, or the band from p to u.

    After T judged samples round((1 - p) T) are flagged: the fraction by which a block's share
    exceeds a whole number is carried to the next block, and so is that of a band, u - p. So,
    whatever the scores do (drift, jumps, ties, any batch size):

    - the flag rate of all judged samples is 1 - p to within 1 / (2 T);
    - that of any w samples in a row is at most ``window_bound(w)`` from it.

    A perfect score of samples that are the share 1 - p of an i.i.d. stream finds
    ``1 - sqrt(p / (2 pi (1 - p) n))`` of them, since a block's number of them varies and its
    quota does not: .96 for the default n = 100 / (1 - p). The price of a block is the wait for its
    end.
    """

    def _verdicts(self, scores: Tensor) -> Tensor:
        if len(scores) < self.n:
            return torch.zeros(0, dtype=torch.bool)
        order = self._ascending(scores[: self.n])
        self.block = scores[order]
        flagged = torch.zeros(self.n, dtype=torch.bool)
        first = self.n - self._quota(1 - Fraction(str(self.percentile)))
        flagged[order[first : first + self._quota(self.rate)]] = True
        return flagged

    def _ascending(self, scores: Tensor) -> Tensor:
        """Order (N,) of a block's scores; equal ones by their place in the stream, well spread."""
        places = self.n_judged + torch.arange(len(scores), dtype=torch.float64)
        order = ((places * _GOLDEN_RATIO) % 1).argsort()
        return order[scores[order].argsort(stable=True)]

    def _quota(self, rate: Fraction) -> int:
        """Return how many of the next block make the share ``rate`` of all samples exact."""
        before, after = (
            math.floor(rate * judged + Fraction(1, 2))
            for judged in (self.n_judged, self.n_judged + self.n)
        )
        return after - before

    @property
    def undecided(self) -> Tensor:
        """Items (M, ...) of the top of the open block; what dropped out of it stays out."""
        order = self._ascending(self._waiting_scores_and_items()[0])
        top = self._quota(1 - Fraction(str(self.percentile)))  # what is above a band may sink in
        return super().undecided[order[max(0, len(order) - top) :]]

    @property
    def rate_bound(self) -> float:
        return 0.5 / self.n_judged if self.n_judged else float("nan")

    def window_bound(self, w: int = WINDOW) -> float:
        """Return how far the flag rate of ``w`` samples in a row can be from its target at most."""
        rate = self.rate
        touched = math.ceil((w - 1) / self.n) + 1
        whole = max(0, (w - self.n + 1) // self.n)
        highest = Fraction(min(w, touched * math.ceil(rate * self.n)), w)
        lowest = Fraction(whole * math.floor(rate * self.n), w)
        return float(max(highest - rate, rate - lowest))


class FixedThreshold(Threshold):
    """The ``percentile`` of the first ``n`` scores, never moved again (the poster's).

    The first n are judged by it once they are all there, later ones at once: flagged is what is
    above it, ties are not; and, in a band, not above its upper end. The flag rate drifts with the
    scores.
    """

    @property
    def _n_needed(self) -> int:
        return 1 if len(self.block) else self.n

    def _verdicts(self, scores: Tensor) -> Tensor:
        if len(self.block) == 0:
            if len(scores) < self.n:
                return torch.zeros(0, dtype=torch.bool)
            self.block = scores[: self.n].sort().values
        above = scores > self.threshold
        if self.upper_percentile is None:
            return above
        return above & (scores <= self.quantile(self.upper_percentile))

    @property
    def rate_bound(self) -> float:
        return float("nan")


def make_threshold(cfg: ThresholdConfig) -> Threshold:
    """Build the threshold that ``cfg.name`` names.

    Raises:
        UserError: for an unknown name.
    """
    if cfg.name not in THRESHOLDS:
        raise unknown_name("threshold", cfg.name, THRESHOLDS)
    return build(THRESHOLDS[cfg.name], vars(cfg))
