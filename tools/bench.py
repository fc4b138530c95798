"""Time ``dino_ood`` beside stock DINO, in one run and in turns: ``make bench``.

Prints, as Markdown: the whole optimisation step of the real host in the real Trainer for every arm,
with and without the loader; peak memory; what the parts take; how long the step waits for crops;
and how the selection grows with its sizes. The arms take single steps in turns, in an order drawn
anew in each round, and the ratios are of steps of the same round: read the ratios, not the times.

    python tools/bench.py [--sections steps parts] [--rounds 24] [--out FOLDER] [--quick]
"""

from __future__ import annotations

import logging
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

import torch

from solo_ood.console import user_errors

with user_errors():
    from solo_ood.host import installed

    installed.require_release()

from speed import growth, memory, parts, processes, steps
from speed.report import Progress, Report, Row, load, machine
from speed.setups import ARMS, DEFAULT, SETUPS, STOCK, Setup, write_pictures

from solo_ood.training.plugin import register

# Rounds relative to --rounds: a step at 224 pixels takes several times as long as one at 32.
EFFORT = {"resnet18 at 224": 0.3, "vit_tiny at 224, 4 x 96": 0.3}


class Bench:
    """One run of the sections.

    Args:
        args: the command line's.
        pictures: an ImageFolder.
    """

    def __init__(self, args: Namespace, pictures: Path) -> None:
        self.args, self.pictures = args, pictures
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.progress = Progress()
        about = {"machine": machine(), "load at the start": load(), "device": self.device}
        self.report = Report(args.out, about)
        print(f"{about['machine']}; load {about['load at the start']}", flush=True)
        wanted = ["tiny"] if args.quick else DEFAULT
        self.arms = list(ARMS)
        self.few = [STOCK, "stock again", "off", "knn"]
        if args.quick or args.arms:
            self.arms = self.few = list(dict.fromkeys([STOCK, *(args.arms or self.few)]))
        self.setups = [SETUPS[name] for name in args.setups or wanted]

    def rounds(self, setup: Setup) -> int:
        return max(3, round(self.args.rounds * EFFORT.get(setup.name, 1.0)))

    def warm(self, setup: Setup) -> int:
        return 3 if setup.name in EFFORT else 6  # scoring begins at the second, replay at the first

    def steps(self) -> None:
        rows: list[Row] = []
        for setup in self.setups:
            rows += steps.compare(
                setup, self.arms, self.pictures, self.device,
                self.rounds(setup), self.warm(setup), None, self.progress,
            )  # fmt: skip
        title = "Step time, loader excluded (batches made beforehand)"
        self.report.add("steps", title, rows)

    def loader(self) -> None:
        rows: list[Row] = []
        workers = 0 if self.args.quick else 1
        for setup in self.setups:
            rows += steps.compare(
                setup, self.few, self.pictures, self.device,
                max(3, self.rounds(setup) // 4), self.warm(setup), workers, self.progress,
            )  # fmt: skip
        title = f"Step time, loader included ({workers} worker, and as many of replay)"
        self.report.add("loader", title, rows)

    def parts(self) -> None:
        count = 3 if self.args.quick else 10
        rows = [
            parts.shares(setup, scorer, self.pictures, self.device, count, self.progress)
            for setup in self.setups
            for scorer in (("knn",) if self.args.quick else ("knn", "mahalanobis", "exemplar"))
        ]
        self.report.add(
            "parts", "Share of the parts of the step, means (on a CPU: of its CPU time)", rows
        )
        if self.device == "cpu" and not self.args.quick:
            found = processes.gathering(self.setups[0].name, "knn", self.pictures, count)
            self.report.add("gather", "Gathering between two processes", [found])

    def waits(self) -> None:
        few = [(0, 0)] if self.args.quick else [(0, 0), (1, 1), (2, 1)]
        count = 3 if self.args.quick else 8
        rows = [
            parts.waits(setup, self.pictures, self.device, workers, count, self.progress)
            for setup in self.setups
            for workers in few
        ]
        title = "What the step waits for, knn, host's loader: share of the step"
        self.report.add("waits", title, rows)

    def memory(self) -> None:
        rows: list[Row] = []
        for setup in self.setups:
            arms = [arm for arm in self.few if arm != "stock again"]
            count = 2 if self.args.quick else 4
            found = memory.peaks(setup.name, arms, self.device, self.pictures, count)
            rows += [
                {
                    "setup": setup.name,
                    "arm": arm,
                    "peak": f"{found[arm][0] / 2**20:.0f} MB",
                    "/ stock": f"{found[arm][0] / found[STOCK][0]:.3f}",
                    "waits of a step": f"{found[arm][1]:.1f}" if self.device == "cuda" else "–",
                    "_bytes": found[arm][0],
                    "_ratio": found[arm][0] / found[STOCK][0],
                    "_waits": found[arm][1],
                }
                for arm in arms
            ]
            self.progress.say(f"memory of {setup.name}")
        title = (
            "Peak memory, each arm in a process of its own, beyond that with the data alone; "
            "how often a step makes the host wait for the GPU"
        )
        self.report.add("memory", title, rows)

    def growth(self) -> None:
        rounds = 3 if self.args.quick else 5
        rows = growth.growth(self.device, rounds, self.args.quick, self.progress)
        title = "Growth of the selection alone, time of a step (on a CPU: CPU time)"
        self.report.add("growth", title, rows)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    sections: dict[str, Callable[[Bench], None]] = {
        name: getattr(Bench, name)
        for name in ("steps", "loader", "parts", "waits", "memory", "growth")
    }
    parser.add_argument("--sections", nargs="+", choices=sections, default=list(sections))
    parser.add_argument("--setups", nargs="+", choices=SETUPS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, help="besides stock DINO")
    parser.add_argument("--rounds", type=int, default=24, help="of the fastest setup")
    parser.add_argument("--out", type=Path, help="a folder for bench.json and a CSV a table")
    parser.add_argument("--quick", action="store_true", help="tiny, for its test")
    args = parser.parse_args()
    if args.quick:
        args.rounds = min(args.rounds, 3)
    register()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # its hints, a run each
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, write_pictures(Path(folder)))
        for name in args.sections:
            sections[name](bench)
    print(f"\nload at the end {load()}")


if __name__ == "__main__":
    sys.exit(main())
