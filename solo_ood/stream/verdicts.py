"""Verdicts on a stream of scores, in the order of the stream, and what it takes to go on."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solo_ood.selection.threshold import Threshold


class Verdict(NamedTuple):
    """What became of an item.

    Attributes:
        name: the item's.
        score: higher = rarer; NaN = none could be given.
        rare: the verdict; ``None`` = none, for want of a score.
    """

    name: str
    score: float
    rare: bool | None


class VerdictStream:
    """Takes named scores and returns verdicts, each once, in the order of the stream.

    With ``QuotaThreshold`` exactly the share 1 - p is rare, whatever the scores do; the verdicts on
    a block of n come with its last score. They do not depend on how the stream is cut into calls,
    nor on a ``state_dict`` and ``load_state_dict`` between two of them.

    Example::

        verdicts = VerdictStream(QuotaThreshold(percentile=0.95, n=200))
        for name, score in stream:
            for verdict in verdicts.take([name], [score]):
                print(verdict.name, verdict.rare)

    Args:
        threshold: which scores are rare.
    """

    def __init__(self, threshold: Threshold) -> None:
        self.threshold = threshold
        self._waiting: deque[tuple[str, float]] = deque()

    def __len__(self) -> int:
        """Items that wait for their verdict."""
        return len(self._waiting)

    def take(self, names: Sequence[str], scores: Sequence[float] | Tensor) -> list[Verdict]:
        """Take items and return the verdicts that are known by now.

        Args:
            names: N of them.
            scores: (N,), higher = rarer; NaN or Inf is never judged.
        """
        values = torch.as_tensor(scores, dtype=torch.float32)
        if len(names) != len(values):
            raise ValueError(f"expected as many names as scores, got {len(names)}, {len(values)}")
        self._waiting.extend(zip(names, values.tolist()))
        _, flags = self.threshold.judge(values, torch.zeros(len(values), dtype=torch.int64))
        verdicts: list[Verdict] = []
        for flag in flags.tolist():
            verdicts += self._unjudged()
            verdicts.append(Verdict(*self._waiting.popleft(), flag))
        if not self.threshold.n_waiting:  # no block is open that these could belong to
            verdicts += self._unjudged()
        return verdicts

    def _unjudged(self) -> list[Verdict]:
        """Take what has no score from the head of those that wait."""
        found = []
        while self._waiting and not isfinite(self._waiting[0][1]):
            found.append(Verdict(*self._waiting.popleft(), None))
        return found

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python only, so that ``torch.load`` reads it in its safe mode."""
        names = [name for name, _ in self._waiting]
        scores = torch.tensor([score for _, score in self._waiting], dtype=torch.float32)
        return {"threshold": self.threshold.state_dict(), "names": names, "scores": scores}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.threshold.load_state_dict(state["threshold"])
        self._waiting = deque(zip(state["names"], state["scores"].tolist()))
