"""The FIFO of flagged dataset indexes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice, takewhile
from typing import Any

import torch


class RareQueue:
    """A bounded FIFO of dataset indexes, each at most once.

    It holds indexes, not pixels: a few KB, the same on every process, cheap to checkpoint. The
    oldest entry leaves when a new one finds the queue full; an index that is already inside keeps
    its place.

    Args:
        capacity: indexes held.
        max_replays: draws after which an index leaves; ``None`` = no limit.
        min_age: steps that an index waits before it can be drawn.
        seed: of the draws; the global RNG is not used.
    """

    def __init__(
        self,
        capacity: int,
        max_replays: int | None = None,
        min_age: int = 0,
        seed: int = 0,
    ) -> None:
        self.capacity = capacity
        self.max_replays = max_replays
        self.min_age = min_age
        self.step = 0  # the clock; its owner advances it, never back
        self._rng = random.Random(seed)
        self._entries: dict[int, list[int]] = {}  # index -> [step of entry, replays], oldest first

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[int]:
        return iter(self._entries)

    def __contains__(self, index: object) -> bool:
        return index in self._entries

    def push(self, indexes: Iterable[int]) -> None:
        """Append the indexes that are not inside yet; evict the oldest beyond the capacity."""
        for index in indexes:
            if index in self._entries:
                continue
            self._entries[index] = [self.step, 0]
            if len(self._entries) > self.capacity:
                del self._entries[next(iter(self._entries))]

    def discard(self, indexes: Iterable[int]) -> None:
        """Take the indexes out, where they are inside."""
        for index in indexes:
            self._entries.pop(index, None)

    def draw(self, n: int) -> list[int]:
        """Draw ``n`` different indexes uniformly among those old enough; [] if there are fewer."""
        old_enough = self._old_enough()
        if n == 0 or len(old_enough) < n:
            return []
        drawn = self._rng.sample(old_enough, n)
        for index in drawn:
            self._entries[index][1] += 1
            if self.max_replays is not None and self._entries[index][1] >= self.max_replays:
                del self._entries[index]
        return drawn

    def holds(self, n: int) -> bool:
        """Whether ``draw(n)`` would give something."""
        return 0 < n <= self._n_old_enough()

    def _old_enough(self) -> list[int]:
        return list(islice(self._entries, self._n_old_enough()))

    def _n_old_enough(self) -> int:
        # The young ones stand at the end: no step has to look through the whole queue.
        ages = (self.step - at for at, _ in reversed(self._entries.values()))
        return len(self) - sum(1 for _ in takewhile(lambda age: age < self.min_age, ages))

    @property
    def mean_age(self) -> float:
        """Mean steps since entry; 0 when empty."""
        ages = [self.step - at for at, _ in self._entries.values()]
        return sum(ages) / len(ages) if ages else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python only, so that ``torch.load`` reads it in its safe mode."""
        version, internal, gauss = self._rng.getstate()
        return {
            "indexes": torch.tensor(list(self._entries), dtype=torch.int64),
            "entries": torch.tensor(list(self._entries.values()), dtype=torch.int64).reshape(-1, 2),
            "step": self.step,
            "rng": [version, list(internal), gauss],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``; beyond a smaller capacity the oldest entries are dropped."""
        self._entries = dict(zip(state["indexes"].tolist(), state["entries"].tolist()))
        for index in list(self._entries)[: max(0, len(self) - self.capacity)]:
            del self._entries[index]
        self.step = state["step"]
        version, internal, gauss = state["rng"]
        self._rng.setstate((version, tuple(internal), gauss))
