"""What the parts of ``dino_ood`` take of its step, and whether it waits for replayed crops."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything
from lightning.pytorch.profilers import SimpleProfiler

from solo_ood.host import release
from solo_ood.replay import mixin
from speed.report import Progress, Row, duration, percent
from speed.setups import Setup, build_model, config, decoded_loader, synchronise
from speed.turns import Turns

PARTS = ("embed", "score", "learn", "threshold", "queue", "log, rest", "mix", "replay wait")
FETCH = "[_TrainingEpochLoop].train_dataloader_next"  # Lightning's name for it


class Stopwatch:
    """Adds up the seconds of calls by part; what a part calls of another counts for the other.

    On a GPU it waits for the device before and after every part, so that work counts where it was
    asked for. The step itself is then slower than without it.

    Args:
        device: "cpu" or "cuda".
        clock: of the CPU time, or, where waiting is part of it, of the time that passes.
    """

    def __init__(self, device: str, clock: Callable[[], float]) -> None:
        self.device, self.clock = device, clock
        self.seconds: Counter[str] = Counter()
        self.each: dict[str, list[float]] = {}
        self._inner: list[float] = []

    def wrap(self, owner: Any, name: str, part: str) -> None:
        """Time ``owner.name`` as ``part`` from now on."""
        setattr(owner, name, self.timed(getattr(owner, name), part))

    def timed(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        """Return ``call``, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            synchronise(self.device)
            start = self.clock()
            self._inner.append(0.0)
            try:
                return call(*args, **kwargs)
            finally:
                synchronise(self.device)
                total = self.clock() - start
                own = total - self._inner.pop()
                self.seconds[part] += own
                self.each.setdefault(part, []).append(own)
                if self._inner:
                    self._inner[-1] += total

        return timed

    def clear(self) -> None:
        """Forget what was timed so far."""
        self.seconds.clear()
        self.each.clear()


def watch(model: Any, device: str, clock: Callable[[], float] = time.perf_counter) -> Stopwatch:
    """Time the parts of a ``dino_ood`` whose training has started."""
    watch = Stopwatch(device, clock)
    selector = model.selector
    watch.wrap(selector, "embed", "embed")
    watch.wrap(selector.scorer, "ood_score", "score")
    watch.wrap(selector.scorer, "partial_fit", "learn")
    for name in ("quantile", "judge"):
        watch.wrap(selector.threshold, name, "threshold")
    watch.wrap(selector, "judge_pending", "queue")
    for name in ("draw", "can_draw"):
        watch.wrap(selector.queue, name, "queue")
    # What is left of it when the parts are taken out: logging, at the steps that loggers read, and
    # the teacher's pass of scorer.feats=eval.
    watch.wrap(model, "_select", "log, rest")
    if model.replay is not None:
        watch.wrap(model.replay, "next", "replay wait")
    _watch_gather(selector, watch)
    return watch


def _watch_gather(selector: Any, watch: Stopwatch) -> None:
    """Time the gathering of several processes without their waiting for the slowest one."""
    import torch.distributed as dist

    step = selector.step

    def stepped(*args: Any, gather: Any = None, broadcast: Any = None, **options: Any) -> None:
        if gather is not None:
            collected = watch.timed(gather, "gather")
            sent = watch.timed(broadcast, "gather")

            def gather(x: Any) -> Any:
                dist.barrier()
                return collected(x)

            def broadcast(x: Any) -> Any:
                dist.barrier()
                return sent(x)

        step(*args, gather=gather, broadcast=broadcast, **options)

    selector.step = stepped


def shares(
    setup: Setup, arm: str, pictures: Path, device: str, steps: int, progress: Progress
) -> Row:
    """Return every part's share of the steps of one arm; means, so that rare work counts."""
    seed_everything(0, verbose=False)
    batch, warm = setup.batch_size(device), 4
    cfg = config(setup, arm, pictures, batch, 0, ["++method_kwargs.ood.mix.num_workers=0"])
    run = Turns(build_model(cfg), decoded_loader(cfg, 2, device), device, warm + steps)
    # Without workers nothing is waited for: on a CPU, what other programs do need not count.
    busy = device == "cpu"
    watched = watch(run.model, device, time.process_time if busy else time.perf_counter)
    mix = mixin.mix
    try:
        watched.wrap(mixin, "mix", "mix")
        run.take(warm)
        watched.clear()
        total = sum(step.cpu if busy else step.wall for step in run.take(steps))
    finally:
        mixin.mix = mix
    seconds = dict(watched.seconds)
    run.close()
    progress.say(f"parts of {setup.name}, {arm}")
    row: Row = {"setup": setup.name, "scorer": arm, "step": duration(total / steps)}
    for part in PARTS:
        row[part] = percent(seconds.get(part, 0.0) / total)
    row["all parts"] = percent(sum(seconds.values()) / total)
    row["_seconds"] = {part: value / steps for part, value in seconds.items()}
    row["_share"] = sum(seconds.values()) / total
    return row


def waits(
    setup: Setup,
    pictures: Path,
    device: str,
    workers: tuple[int, int],
    steps: int,
    progress: Progress,
) -> Row:
    """Return how long the step waits for fresh and for replayed crops, with the host's loader."""
    seed_everything(0, verbose=False)
    fresh, replay = workers
    warm = 4 + 2 * fresh
    extra = [f"++method_kwargs.ood.mix.num_workers={replay}"]
    cfg = config(setup, "knn", pictures, setup.batch_size(device), fresh, extra)
    profiler = SimpleProfiler()
    loader = release.train_loader(cfg)
    run = Turns(build_model(cfg), loader, device, warm + steps, profiler=profiler)
    watched = watch(run.model, device)
    run.take(warm)
    watched.clear()
    before = len(profiler.recorded_durations[FETCH])
    total = sum(step.wall for step in run.take(steps))
    fetched = sum(profiler.recorded_durations[FETCH][before:])
    each = sorted(watched.each["replay wait"])
    run.close()
    progress.say(f"waits of {setup.name} with {fresh} + {replay} workers")
    return {
        "setup": setup.name,
        "workers, train + replay": f"{fresh} + {replay}",
        "step": duration(total / steps),
        "fresh crops": percent(fetched / total),
        "replayed crops": percent(sum(each) / total),
        "median wait": duration(each[len(each) // 2]),
        "longest": duration(each[-1]),
        "_steps": steps,
    }
