"""How often each index was replayed, over the run and per epoch, and the caps on both."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch


class Exposures:
    """Count the replays of every index, and say which of them may have more.

    The cap of an epoch is kept by a rest of ``epoch / max_per_epoch`` batches after every replay of
    an index. So its replays are spread, and no window of one epoch holds more of them, wherever it
    starts. While few indexes are queued, fewer rows are drawn.

    It keeps one number for each index that was ever replayed, and another for those that rest: 16
    bytes each in a checkpoint.

    Args:
        max_per_run: replays of an index in the whole run; ``None`` = no limit.
        max_per_epoch: replays of an index in the batches of one epoch; ``None`` = no limit.

    Attributes:
        epoch: batches of an epoch of one process; infinite if unknown.
        last_epoch: mean replays of those that were replayed in the last whole epoch; ``None``
            before its end.
    """

    def __init__(self, max_per_run: int | None = None, max_per_epoch: float | None = None) -> None:
        self.max_per_run, self.max_per_epoch = max_per_run, max_per_epoch
        self.epoch = math.inf
        self.last_epoch: float | None = None
        self._in_run: dict[int, int] = {}  # index -> replays
        self._in_epoch: dict[int, int] = {}  # index -> replays since the step `_epoch_start`
        self._epoch_start: int | None = None
        self._resting: dict[int, int] = {}  # index -> step of its last replay, the earliest first

    @property
    def capped(self) -> bool:
        """Whether there is a cap, so that fewer rows than asked for are drawn, too."""
        return self.max_per_run is not None or self.max_per_epoch is not None

    @property
    def distinct(self) -> int:
        """Number of indexes that were ever replayed."""
        return len(self._in_run)

    @property
    def rest(self) -> float:
        """Batches from a replay of an index to its next one, at least."""
        batches = 0 if self.max_per_epoch is None else self.epoch / self.max_per_epoch
        return batches if batches == math.inf else math.ceil(batches)

    def used_up(self, index: int) -> bool:
        """Whether the index had all the replays that it may have in a run."""
        return self.max_per_run is not None and self._in_run.get(index, 0) >= self.max_per_run

    def rested(self, indexes: Iterable[int], step: int) -> list[int]:
        """Return those of the indexes that do not rest at ``step``."""
        while self._resting:
            first = next(iter(self._resting))
            if step - self._resting[first] < self.rest:
                break
            del self._resting[first]
        return [index for index in indexes if index not in self._resting]

    def rows(self, n: int, n_queued: int) -> int:
        """Return how many of ``n`` rows to draw, so that the rests do not all end together."""
        return min(n, math.ceil(n_queued / self.rest)) if 0 < self.rest < math.inf else n

    def note(self, indexes: Iterable[int], step: int) -> None:
        """Count one replay of each index; ``step`` never goes back."""
        if self._epoch_start is None:
            self._epoch_start = step
        if step - self._epoch_start >= self.epoch:
            self.last_epoch = sum(self._in_epoch.values()) / len(self._in_epoch)
            self._epoch_start = step
            self._in_epoch.clear()
        for index in indexes:
            self._in_run[index] = self._in_run.get(index, 0) + 1
            self._in_epoch[index] = self._in_epoch.get(index, 0) + 1
            if self.max_per_epoch is not None:
                self._resting.pop(index, None)  # to the end
                self._resting[index] = step

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python only, so that ``torch.load`` reads it in its safe mode."""
        counted = {"run": self._in_run, "epoch": self._in_epoch, "resting": self._resting}
        return {
            **{
                key: torch.tensor(list(d.items()), dtype=torch.int64).reshape(-1, 2)
                for key, d in counted.items()
            },
            "epoch_start": self._epoch_start,
            "last_epoch": self.last_epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._in_run, self._in_epoch, self._resting = (
            dict(state[key].tolist()) for key in ("run", "epoch", "resting")
        )
        self._epoch_start, self.last_epoch = state["epoch_start"], state["last_epoch"]
