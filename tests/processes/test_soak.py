"""Many steps of scoring and queueing cost what the first ones cost: nothing grows."""

from __future__ import annotations

import gc
import pickle
import sys
import time
import tracemalloc
from array import array
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor

from solo_ood.selection import self_check
from solo_ood.selection.scorers import ExemplarScorer
from solo_ood.selection.selector import RareSelector
from solo_ood.settings.schema import parse

B, D, CAPACITY, RATIO, BLOCK = 16, 32, 64, 4, 64
WARM_UP = 200  # steps until the reference, the window and the queue are full
STATM = Path("/proc/self/statm")


def selector_of(name: str) -> RareSelector:
    exemplar = {"exemplars": [0], "feats": "eval"} if name == "exemplar" else {}
    cfg = parse(
        {
            "scorer": {"name": name, "n_reference": 1024, "min_samples": 64, **exemplar},
            "threshold": {"n": BLOCK, "percentile": 0.9},
            "queue": {"capacity": CAPACITY},
            "mix": {"ratio": 1 / RATIO},
        },
        B,
    )
    selector = RareSelector(cfg, D, 3)
    selector.rare_classes = [0]
    return selector


class Stream:
    """Endless batches that drift, with a NaN now and then and indexes that never come again."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.step = 0

    def feats(self, n: int) -> Tensor:
        drift = torch.sin(torch.arange(D) + self.step / 500)
        feats = drift + 0.5 * torch.randn(n, D, generator=self.generator)
        if self.step % 97 == 0:
            feats[0, 0] = float("nan")
        return feats

    def into(self, selector: RareSelector) -> float:
        """Feed one batch, a quarter of it replays if there are enough; return seconds."""
        rare = selector.queue.draw(B // RATIO)
        first = self.step * B
        indexes = torch.tensor([*range(first, first + B - len(rare)), *rare])
        crops = [self.feats(B), self.feats(B)]
        exemplars = self.feats(5)
        self.step += 1
        start = time.perf_counter()
        if isinstance(selector.scorer, ExemplarScorer) and self.step % 50 == 1:
            selector.scorer.set_exemplars(exemplars)
        selector.step(indexes, selector.embed(crops), indexes % 3, len(rare))
        selector.metrics()
        return time.perf_counter() - start


def held(selector: RareSelector) -> dict[str, int]:
    """What the process holds: objects, tensors, bytes of Python, bytes of it all."""
    gc.collect()
    kinds = [type(one) for one in gc.get_objects()]
    pages = int(STATM.read_text().split()[1]) if STATM.is_file() else 0
    return {
        "objects": len(kinds),
        "tensors": sum(issubclass(kind, Tensor) for kind in kinds),
        "blocks": sys.getallocatedblocks(),
        "python": tracemalloc.get_traced_memory()[0],
        "resident": 4096 * pages,
        # Whatever hangs on the selector, in an attribute that nobody thought of as well.
        "pickled": len(pickle.dumps(selector)),
    }


def sizes(selector: RareSelector) -> dict[str, Any]:
    """The size of every tensor and container of the state, but for the queue and what is pending,
    of which it checks the bounds."""
    state = selector.state_dict()
    assert len(state["queue"]["indexes"]) == len(state["queue"]["entries"]) <= CAPACITY
    assert all(part.numel() <= B for part in state.pop("pending").values())
    state["queue"] = {"rng": state["queue"]["rng"], "step": 0}
    for part in ("scores", "waiting"):
        assert len(state["threshold"].pop(part)) < selector.threshold.n
    found: dict[str, Any] = {}

    def look(part: Any, path: str) -> None:
        if isinstance(part, Tensor):
            found[path] = tuple(part.shape)
        elif isinstance(part, (dict, list, tuple)):
            found[path] = len(part)
            for key, inner in part.items() if isinstance(part, dict) else enumerate(part):
                look(inner, f"{path}.{key}")

    look(state, "state")
    return found


# One queue entry is a list and some ints; the queue fills and empties between two looks at it.
SLACK = {
    "objects": 3 * CAPACITY,
    "tensors": 2 * BLOCK // (B - B // RATIO) + 2,  # of the block that waits, as they came
    "blocks": 10 * CAPACITY,
    "python": 64_000,
    "resident": 16_000_000,
    "pickled": 40 * CAPACITY + 200 * BLOCK,
}


@pytest.fixture(autouse=True)
def few_distinct(monkeypatch):
    """The self-check is full within the warm-up."""
    monkeypatch.setattr(self_check, "MAX_DISTINCT", CAPACITY)


def soak(name: str, steps: int) -> None:
    selector, stream = selector_of(name), Stream()
    times = array("d", bytes(8 * steps))  # made beforehand: the test must not grow either
    tracemalloc.start()
    try:
        for number in range(WARM_UP):
            times[number] = stream.into(selector)
        shape, before, queued = sizes(selector), held(selector), 0
        for number in range(WARM_UP, steps):
            times[number] = stream.into(selector)
            queued = max(queued, len(selector.queue))
            if number % (steps // 10) == 0:
                assert sizes(selector) == shape, number
        after = held(selector)
    finally:
        tracemalloc.stop()
    count, tenth = selector.counts, steps // 10
    early, late = (
        1e6 * median(part) for part in (times[WARM_UP : WARM_UP + tenth], times[-tenth:])
    )
    grown = {key: after[key] - before[key] for key in before}
    print(
        f"{name}: {steps} steps, a step {early:.0f} us in the first tenth and {late:.0f} us in the "
        f"last; grown by {grown}; queue at most {queued}, {count['replayed']} rows replayed"
    )
    assert CAPACITY / 2 < queued <= CAPACITY and count["replayed"] > steps
    assert count["judged"] + count["not_finite"] > 10 * steps and count["not_finite"] > 0
    for key, slack in SLACK.items():
        assert grown[key] <= slack, (key, grown)


@pytest.mark.parametrize("name", ["knn", "mahalanobis", "exemplar"])
def test_nothing_grows_in_500_steps(name):
    soak(name, 500)


@pytest.mark.long
@pytest.mark.parametrize("name", ["knn", "mahalanobis", "exemplar"])
def test_nothing_grows_in_20000_steps(name):
    soak(name, 20_000 + WARM_UP)
