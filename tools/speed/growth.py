"""How the selection alone, ``RareSelector.step``, grows with each of its sizes."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from timing import medians

from solo_ood.selection.scorers import ExemplarScorer
from solo_ood.selection.selector import RareSelector
from solo_ood.settings.schema import OODConfig, parse
from speed.report import Progress, Row, duration
from speed.setups import synchronise

SCORERS = ("knn", "mahalanobis", "exemplar", "random")
STEPS = 10  # of one call: a covariance is factorised at every tenth step only
AT = {"reference": 1024, "features": 384, "queue": 1024, "batch": 32, "steps done": 100}
VALUES = {
    "reference": (1024, 8192, 65536),
    "features": (192, 384, 768, 2048),
    "queue": (64, 1024, 8192, 65536),
    "batch": (32, 128, 512),
    "steps done": (100, 1000, 4000),
}


class Stream:
    """A selector in the middle of a run, its queue full, and steps to feed it."""

    def __init__(self, scorer: str, device: str, sizes: dict[str, int]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.batch, self.rare, dim = sizes["batch"], sizes["batch"] // 4, sizes["features"]
        cfg: OODConfig = parse(
            {
                "scorer": {"name": scorer, "n_reference": sizes["reference"], "min_samples": 2},
                "threshold": {"n": 20},
                "queue": {
                    "capacity": max(sizes["queue"], self.rare),
                    "release": 0.0,
                    "max_replays": None,
                },
                **({"scorer": _exemplars(sizes)} if scorer == "exemplar" else {}),
            }
        )
        self.selector = RareSelector(cfg, dim).to(torch.device(device))
        if isinstance(self.selector.scorer, ExemplarScorer):
            self.selector.scorer.set_exemplars(torch.randn(10, dim, generator=generator).to(device))
        # Two global crops of a few different batches.
        self.feats = [
            [torch.randn(self.batch, dim, generator=generator).to(device) for _ in range(2)]
            for _ in range(4)
        ]
        self.targets = torch.zeros(self.batch, dtype=torch.int64, device=device)
        self.indexes = torch.arange(self.batch, device=device)
        self.selector.queue.push(range(self.selector.queue.capacity))
        self.n_done = 0

    def take(self, steps: int) -> None:
        """Draw and select, as a training step does."""
        for _ in range(steps):
            self.selector.queue.can_draw(self.rare)
            self.selector.queue.draw(self.rare)
            feats = self.selector.embed(self.feats[self.n_done % 4])
            indexes = self.indexes + self.n_done * self.batch
            self.selector.step(indexes, feats, self.targets, self.rare)
            self.n_done += 1


def _exemplars(sizes: dict[str, int]) -> dict[str, object]:
    return {
        "name": "exemplar",
        "n_reference": sizes["reference"],
        "min_samples": 2,
        "exemplars": list(range(10)),
        "feats": "eval",
    }


def growth(device: str, rounds: int, small: bool, progress: Progress) -> list[Row]:
    """Time ten steps at every size of every kind, all sizes of a kind in turns.

    The reference, the features and the batch grow the scorer's work, for each scorer; the queue and
    the steps done have nothing to do with the scorer.
    """
    # On a CPU the time of this process alone: what other programs do is not in it.
    clock = time.perf_counter if device == "cuda" else time.process_time
    rows = []
    for kind, values in VALUES.items():
        values = values[:2] if small else values
        base = AT[kind]
        of_scorer = kind in ("reference", "features", "batch")
        for scorer in SCORERS if of_scorer else ("knn",):
            calls: dict[str, Callable[[], object]] = {}
            for value in values:
                stream = Stream(scorer, device, {**AT, kind: value})
                warm = value if kind == "steps done" else 2 * STEPS
                stream.take(warm if not small else STEPS)

                def call(stream: Stream = stream) -> None:
                    stream.take(STEPS)
                    synchronise(device)

                calls[str(value)] = call
            seconds = medians(calls, rounds, clock)
            row: Row = {
                "grows": kind,
                "scorer": scorer if kind not in ("queue", "steps done") else "–",
            }
            row["at"] = f"{base:,}: {duration(seconds[str(base)] / STEPS)}"
            row["times as long"] = ", ".join(
                f"{value:,}: {seconds[str(value)] / seconds[str(base)]:.2f}"
                for value in values
                if value != base
            )
            row["_seconds"] = {value: second / STEPS for value, second in seconds.items()}
            rows.append(row)
            progress.say(f"growth with {kind}, {scorer}")
    return rows
