"""The whole optimisation step of every arm, beside stock DINO's, in turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import seed_everything
from timing import paired_ratio

from solo_ood.host import release
from speed.report import Progress, Row, duration
from speed.setups import STOCK, Setup, build_model, config, decoded_loader
from speed.turns import Step, Turns, interleaved

BATCHES = 4  # different ones that are made beforehand


def compare(
    setup: Setup,
    arms: Sequence[str],
    pictures: Path,
    device: str,
    rounds: int,
    warm: int,
    workers: int | None,
    progress: Progress,
) -> list[Row]:
    """Time ``arms`` in turns; ``STOCK`` has to be one of them.

    Args:
        workers: of the train loader, its time included; ``None`` = no loader at all, the batches
            are made beforehand. Replay always reads its rows, in this process if ``None``.
        warm: steps of every arm before the first round.
    """
    batch = setup.batch_size(device)
    decoded = workers is None
    # With workers, turns longer than what they read ahead, which they did for free while others had
    # their turn: the steps after that count.
    skip = 2 * workers if workers else 0
    block = 1 if decoded else skip + 3
    steps = warm + rounds * block
    running: dict[str, Turns] = {}
    shared = None
    for arm in arms:
        seed_everything(0, verbose=False)  # the same weights in all arms
        extra = ["++method_kwargs.ood.mix.num_workers=0"] if decoded else []
        cfg = config(setup, arm, pictures, batch, workers or 0, extra)
        if decoded:
            shared = shared or decoded_loader(cfg, BATCHES, device)
        loader = shared if decoded else release.train_loader(cfg)
        running[arm] = Turns(build_model(cfg), loader, device, steps, precision=setup.precision)
        running[arm].take(warm)
        progress.say(f"{setup.name}, {arm}: {warm} steps to warm up")
    rng = np.random.default_rng(0)

    def said(turn: int) -> None:
        if turn % max(1, rounds // 4) == 0:
            progress.say(f"{setup.name}: round {turn} of {rounds}")

    taken = interleaved(
        running, rounds, block, skip, lambda names: rng.permutation(names).tolist(), said
    )
    rows = [_row(setup, arm, running[arm].model, taken, decoded) for arm in arms]
    for arm in running.values():
        arm.close()
    return rows


def _row(
    setup: Setup, arm: str, model: Any, taken: dict[str, list[list[Step]]], decoded: bool
) -> Row:
    def of(name: str, kind: str) -> list[float]:
        return [float(np.mean([getattr(step, kind) for step in turn])) for turn in taken[name]]

    wall = paired_ratio(of(arm, "wall"), of(STOCK, "wall"))
    row: Row = {
        "setup": setup.name,
        "arm": arm,
        "step": duration(float(np.median(of(arm, "wall")))),
        "time / stock": str(wall),
        "_ratio": wall.median,
        "_low": wall.low,
        "_high": wall.high,
    }
    if decoded:  # with workers, much of the work is done in other processes
        cpu = paired_ratio(of(arm, "cpu"), of(STOCK, "cpu"))
        row["CPU time / stock"] = str(cpu)
        row.update(_cpu_ratio=cpu.median, _cpu_low=cpu.low, _cpu_high=cpu.high)
    selector = getattr(model, "selector", None)
    row["replayed rows"] = selector.counts["replayed"] if selector is not None else "–"
    row["_seconds"] = of(arm, "wall")
    return row
