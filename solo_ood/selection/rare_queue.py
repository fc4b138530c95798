"""The FIFO of flagged dataset indexes, and what became of them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from itertools import islice, takewhile
from typing import Any

import torch

from solo_ood.selection.exposures import Exposures

DEPARTURES = ("released", "worn_out", "pushed_out", "unreadable")  # how an index leaves


class RareQueue:
    """A bounded FIFO of dataset indexes, each at most once.

    It holds indexes, not pixels: a few KB, the same on every process, cheap to checkpoint. The
    oldest entry leaves when a new one finds the queue full; an index that is already inside keeps
    its place. It also counts how often each index was drawn: two runs that replay as many rows may
    replay few samples often, or many rarely.

    Attributes:
        n_drawn: draws so far, of all processes.
        left: how many entries left, by how: ``released`` for their score, ``worn_out`` by
            ``max_replays`` or its cap of the run, ``pushed_out`` by newer ones, ``unreadable``.

    Args:
        capacity: indexes held.
        max_replays: draws after which an index leaves; ``None`` = no limit.
        min_age: steps that an index waits before it can be drawn.
        seed: of the draws; the global RNG is not used.
        exposures: counts the draws of each index, and caps them; ``None`` = without a cap.
    """

    def __init__(
        self,
        capacity: int,
        max_replays: int | None = None,
        min_age: int = 0,
        seed: int = 0,
        exposures: Exposures | None = None,
    ) -> None:
        self.capacity = capacity
        self.max_replays = max_replays
        self.min_age = min_age
        self.step = 0  # the clock; its owner advances it, never back
        self._rng = random.Random(seed)
        self._entries: dict[int, list[int]] = {}  # index -> [step of entry, replays], oldest first
        self.n_drawn = 0
        self.departures = dict.fromkeys(DEPARTURES, 0)
        self.exposures = exposures or Exposures()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[int]:
        return iter(self._entries)

    def __contains__(self, index: object) -> bool:
        return index in self._entries

    def takes(self, index: int) -> bool:
        """Whether the index is not inside yet, and has not had all the replays of a run."""
        return index not in self._entries and not self.exposures.used_up(index)

    def push(self, indexes: Iterable[int]) -> None:
        """Append the indexes that it takes; evict the oldest beyond the capacity."""
        for index in indexes:
            if not self.takes(index):
                continue
            self._entries[index] = [self.step, 0]
            if len(self._entries) > self.capacity:
                self._remove(next(iter(self._entries)), "pushed_out")

    def release(self, indexes: Iterable[int]) -> None:
        """Take out the indexes that are not rare any more, where they are inside."""
        for index in indexes:
            self._remove(index, "released")

    def discard(self, indexes: Iterable[int]) -> None:
        """Take out the indexes that cannot be read, where they are inside."""
        for index in indexes:
            self._remove(index, "unreadable")

    def _remove(self, index: int, how: str) -> None:
        if self._entries.pop(index, None) is not None:
            self.departures[how] += 1

    def draw(self, n: int, multiple_of: int = 1) -> list[int]:
        """Draw ``n`` different indexes uniformly among those old enough; [] if there are fewer.

        With a cap on the exposures fewer may be drawn: what it leaves of ``n``, rounded to a
        ``multiple_of`` the processes that share them.
        """
        ready = self._ready()
        n = self._n_to_draw(n, len(ready), multiple_of)
        if n == 0:
            return []
        drawn = self._rng.sample(ready, n)
        self.n_drawn += n
        self.exposures.note(drawn, self.step)
        for index in drawn:
            entry = self._entries[index]
            entry[1] += 1
            replayed_out = self.max_replays is not None and entry[1] >= self.max_replays
            if replayed_out or self.exposures.used_up(index):
                self._remove(index, "worn_out")
        return drawn

    def can_draw(self, n: int, multiple_of: int = 1) -> bool:
        """Whether ``draw(n, multiple_of)`` would give something."""
        # Only a rest asks for a look through the whole queue.
        n_ready = len(self._ready()) if self.exposures.rest else self._n_old_enough()
        return self._n_to_draw(n, n_ready, multiple_of) > 0

    def _n_to_draw(self, n: int, n_ready: int, multiple_of: int) -> int:
        if not self.exposures.capped:
            return n if n <= n_ready else 0
        wanted = math.ceil(self.exposures.rows(n, len(self)) / multiple_of) * multiple_of
        return min(n, wanted, n_ready) // multiple_of * multiple_of

    def _ready(self) -> list[int]:
        """Return the indexes that can be drawn, the oldest first."""
        old_enough = list(islice(self._entries, self._n_old_enough()))
        return self.exposures.rested(old_enough, self.step) if self.exposures.rest else old_enough

    def _n_old_enough(self) -> int:
        # The young ones stand at the end: no step has to look through the whole queue.
        ages = (self.step - at for at, _ in reversed(self._entries.values()))
        return len(self) - sum(1 for _ in takewhile(lambda age: age < self.min_age, ages))

    @property
    def mean_age(self) -> float:
        """Mean steps since entry; 0 when empty."""
        ages = [self.step - at for at, _ in self._entries.values()]
        return sum(ages) / len(ages) if ages else 0.0

    def replay_counts(self) -> dict[str, float]:
        """How few samples were replayed how often, and why they left, as far as it is known.

        Returns:
            ``distinct_replayed``, samples; ``replays_per_sample``, mean draws of these;
            ``replays_per_epoch``, mean draws, in the last whole epoch, of those drawn in it;
            ``share_released``, of the entries that left, those that left for their score.
        """
        distinct, left = self.exposures.distinct, sum(self.departures.values())
        known = {"distinct_replayed": float(distinct)}
        if distinct:
            known["replays_per_sample"] = self.n_drawn / distinct
        if self.exposures.last_epoch is not None:
            known["replays_per_epoch"] = self.exposures.last_epoch
        if left:
            known["share_released"] = self.departures["released"] / left
        return known

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python only, so that ``torch.load`` reads it in its safe mode."""
        version, internal, gauss = self._rng.getstate()
        return {
            "indexes": torch.tensor(list(self._entries), dtype=torch.int64),
            "entries": torch.tensor(list(self._entries.values()), dtype=torch.int64).reshape(-1, 2),
            "step": self.step,
            "rng": [version, list(internal), gauss],
            "exposures": self.exposures.state_dict(),
            "n_drawn": self.n_drawn,
            "left": dict(self.departures),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``; beyond a smaller capacity the oldest entries are pushed out."""
        self._entries = dict(zip(state["indexes"].tolist(), state["entries"].tolist()))
        if "exposures" in state:
            self.exposures.load_state_dict(state["exposures"])
        else:  # a checkpoint of before: it says which were drawn, not how often
            self.exposures.note(state["ever_drawn"].tolist(), state["step"])
        self.n_drawn, self.departures = state["n_drawn"], dict(state["left"])
        for index in list(self._entries)[: max(0, len(self) - self.capacity)]:
            self._remove(index, "pushed_out")
        for index in filter(self.exposures.used_up, list(self._entries)):  # with a lower cap now
            self._remove(index, "worn_out")
        self.step = state["step"]
        version, internal, gauss = state["rng"]
        self._rng.setstate((version, tuple(internal), gauss))
