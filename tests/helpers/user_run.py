"""A tiny run on a folder of the user's own, trained by the real host, for tests of what follows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = {"bus": 14, "car": 24, "cyclist": 4, "dog": 8}


def pictures(root, counts, seed=0, size=(40, 28)):
    """Write noise with a square whose colour is the class's; JPEGs of an odd size."""
    rng = np.random.default_rng(seed)
    for name, n in counts.items():
        (root / name).mkdir(parents=True)
        colour = np.random.default_rng(sum(map(ord, name))).integers(0, 255, 3)
        for number in range(n):
            pixels = rng.integers(90, 160, (size[1], size[0], 3), dtype=np.uint8)
            top, left = rng.integers(0, size[1] - 14), rng.integers(0, size[0] - 14)
            pixels[top : top + 14, left : left + 14] = colour
            Image.fromarray(pixels).save(root / name / f"{number:02d}.jpg")
    return root


def train(folder, compose, build, loader, trainer, *overrides, epochs=1):
    """Train for 6 steps an epoch as the host's program does; return the run's folder."""
    from lightning.pytorch.loggers import CSVLogger

    from solo_ood.host import installed

    cfg = compose("data.dataset=custom", f"checkpoint.dir={folder}", *overrides)
    logs = folder / cfg.method
    if installed.generation() == "release":
        from solo_ood.host.release import checkpointer

        saver = checkpointer(cfg)
    else:
        from solo.utils.checkpointer import Checkpointer

        saver = Checkpointer(cfg, logs)
    logger = CSVLogger(folder, name=cfg.method, version="0")
    fit = trainer(logger=logger, callbacks=[saver], max_epochs=epochs, log_every_n_steps=1)
    fit.fit(build(cfg), loader(cfg))
    return Path(logs / "0")
