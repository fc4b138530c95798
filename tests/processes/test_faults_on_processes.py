"""A file or a worker that one of two processes loses: both stay in step."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import torch
from damaged import FAST, NEVER_LEAVE, OOD, Said, damage, stream, write_images
from lightning.pytorch import Callback
from repository import HELPERS, ROOT


class Faults(Callback):
    """The same queue on both processes; the files of 1 are damaged, a worker of 0 dies."""

    def on_train_start(self, trainer, module):
        self.said = Said()
        self.said.__enter__()
        self.draws = []

    def watch(self, replay):
        next_batch = replay.next

        def recorded():
            batch = next_batch()
            self.draws.append(None if batch is None else batch[0].tolist())
            return batch

        replay.next = recorded

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 0:
            self.watch(module.replay)
        if trainer.global_step == 2:
            module.selector.queue.push(range(40, 48))
        if trainer.global_step == 8 and trainer.global_rank == 0:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)

    def on_train_end(self, trainer, module):
        self.said.__exit__(None, None, None)


def main(folder: str, overrides: list[str]) -> None:
    """Train on two gloo processes, each with its own copy of the images."""
    from ddp_run import model_and_loader
    from lightning.pytorch import Trainer

    train = f"{folder}/{os.environ.get('LOCAL_RANK', 0)}/train"
    paths = [f"data.train_path={train}", f"data.val_path={train}"]
    model, whole = model_and_loader(ROOT / "configs", [*overrides, *paths])
    faults = Faults()
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=8, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[faults],
    )  # fmt: skip
    trainer.fit(model, stream(whole))
    state = {
        "selector": model.selector.state_dict(),
        "draws": faults.draws,
        "said": faults.said.texts,
    }
    torch.save(state, Path(folder) / f"{trainer.global_rank}.pt")


def test_processes_stay_in_step_when_one_cannot_read_or_loses_a_worker(tmp_path, registered, tiny):
    for rank in (0, 1):
        paths = write_images(tmp_path / str(rank))
    for index in (40, 41, 42, 43):
        damage(paths[index], "truncated")
    overrides = [*tiny, *FAST, *NEVER_LEAVE, f"{OOD}mix.num_workers=1"]
    done = subprocess.run(
        [sys.executable, __file__, tmp_path, *overrides],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HELPERS)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    mine, theirs = first["selector"], second["selector"]
    assert mine["queue"]["rng"] == theirs["queue"]["rng"] and mine["counts"] == theirs["counts"]
    for part in ("queue", "scorer", "threshold"):
        for key, value in mine[part].items():
            torch.testing.assert_close(value, theirs[part][key], rtol=0, atol=0, equal_nan=True)
    # Only the process that failed says so; both drop the index.
    lost = {int(re.findall(r"training sample (\d+)", text)[0]) for text in second["said"]}
    assert lost and lost <= {40, 41, 42, 43} and len(second["said"]) == len(lost)
    assert not lost & set(mine["queue"]["indexes"].tolist())
    assert len(first["said"]) == 1 and "a replay worker that died" in first["said"][0]
    # The same number of rows at the same steps, and never the same sample twice.
    assert len(first["draws"]) == len(second["draws"]) > 12
    pairs = list(zip(first["draws"], second["draws"]))
    assert sum(a is not None for a, _ in pairs) > 8
    for a, b in pairs:
        assert (a is None) == (b is None)
        if a is not None:
            assert len(a) == len(b) == 2 and len({max(i, -1 - i) for i in a + b}) == 4


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
