"""The parts of a step on two processes, where gathering comes in.

Run as ``python -m speed.processes SETUP ARM PICTURES STEPS``, it prints them as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from speed.children import printed_by
from speed.report import Row, duration, percent


def gathering(setup: str, arm: str, pictures: Path, steps: int) -> Row:
    """Return what gathering takes of a step on two gloo processes of this machine."""
    took = json.loads(printed_by("speed.processes", setup, arm, pictures, steps))
    return {
        "setup": f"{setup}, 2 processes",
        "scorer": arm,
        "step": duration(took["step"]),
        "gather": percent(took["gather"] / took["step"]),
        "gather, per step": duration(took["gather"]),
        "_seconds": took,
    }


def main() -> None:
    from lightning.pytorch import Callback, Trainer, seed_everything

    from solo_ood.training.plugin import register
    from speed.parts import Stopwatch, watch
    from speed.setups import SETUPS, build_model, config, decoded_loader

    name, arm, pictures, steps = sys.argv[1:]
    warm = 5

    class Watch(Callback):
        watched: Stopwatch
        started = 0.0

        def on_train_batch_start(
            self, trainer: Any, module: Any, batch: Any, batch_idx: int
        ) -> None:
            if batch_idx == 0:
                self.watched = watch(module, "cpu")
            if batch_idx == warm:
                self.watched.clear()
                self.started = time.perf_counter()

    register()
    seed_everything(0, verbose=False)
    cfg = config(SETUPS[name], arm, Path(pictures), SETUPS[name].batch, 0)
    model, loader, timer = build_model(cfg), decoded_loader(cfg, 2, "cpu"), Watch()
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_steps=warm + int(steps),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the batches are made beforehand
        callbacks=[timer],
    )
    trainer.fit(model, loader)
    step = (time.perf_counter() - timer.started) / int(steps)
    seconds = {part: value / int(steps) for part, value in timer.watched.seconds.items()}
    if trainer.is_global_zero:
        print(json.dumps({"step": step, **seconds}))


if __name__ == "__main__":
    main()
