"""Used by test_many_processes.py: train in processes like torchrun's, record every step.

    torchrun --nproc-per-node=2 processes_run.py FOLDER RUNS

RUNS is JSON: the overrides that all runs have, and a name with options for each run: overrides,
``padded`` or ``unequal`` batches, ``unlike`` devices, a checkpoint to resume from.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ddp_run import model_and_loader
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from repository import NO_WIDTH, ROOT
from torch.utils.data import DataLoader, Dataset

from solo_ood.host import networks

CONFIGS = ROOT / "configs"
GLOBAL_BATCH, STREAM = 16, 96  # rows of a step on all processes, of an epoch
RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def overrides_of(tiny: list[str], options: list[str]) -> list[str]:
    """Return what makes every number of processes train the same on the same global batch."""
    rows = GLOBAL_BATCH // WORLD
    return [
        *tiny,
        f"optimizer.batch_size={rows}",
        # No BatchNorm, which would see each process's rows alone.
        NO_WIDTH,
        "backbone.name=vit_tiny",
        "+backbone.kwargs.patch_size=16",
        "+backbone.kwargs.img_size=32",
        "+backbone.kwargs.mlp_ratio=0.5",
        "method_kwargs.use_bn_in_head=False",
        "augmentations.1.crop_size=16",
        # AdamW would make large steps of the rounding errors of small gradients.
        "optimizer.name=sgd",
        f"optimizer.lr={0.02 * 256 / rows}",  # the host multiplies by rows / 256
        f"optimizer.classifier_lr={0.02 * 256 / rows}",
        "max_epochs=4",
        *(option for option in options if "=" in option),
    ]


class SameCrops(Dataset):
    """A dataset with the same crops of a sample at every reading, by any process."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        with isolate_rng():
            for seed in (torch.manual_seed, random.seed, np.random.seed):
                seed(index)
            return self.dataset[index]


def loader_of(whole: DataLoader, options: list[str]) -> DataLoader:
    """Return this process's batches: of the host's loader, but those that ``options`` name."""
    dataset, rows = SameCrops(whole.dataset), GLOBAL_BATCH // WORLD
    stream = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    if "padded" in options:  # Lightning splits them; 90 rows do not make whole batches
        return DataLoader(dataset, rows, sampler=stream[:90], collate_fn=whole.collate_fn)
    if "unequal" in options:
        size = rows + 1 if RANK % 2 else rows - 1
        share = stream[RANK * STREAM :][: 6 * size - RANK % 2]  # some have a smaller last batch
        return DataLoader(dataset, size, sampler=share, collate_fn=whole.collate_fn)
    steps = [stream[at : at + GLOBAL_BATCH] for at in range(0, STREAM, GLOBAL_BATCH)]
    # One after the other, the rows of the processes are those of the single one.
    batches = [step[RANK * rows : (RANK + 1) * rows] for step in steps]
    return DataLoader(dataset, batch_sampler=batches, collate_fn=whole.collate_fn)


def digest(state: Any) -> str:
    """Return a hash of nested tensors and plain values."""
    parts = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            parts.update(f"{value.dtype}{tuple(value.shape)}".encode())
            parts.update(value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value):
                parts.update(key.encode())
                add(value[key])
        else:
            parts.update(repr(value).encode())

    add(state)
    return parts.hexdigest()


class Steps(Callback):
    """Record what the selector holds and gets at every step, and save after the second epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record: dict[str, Any] = {
            "digests": [],
            "queues": [],  # before the step's replays are drawn
            "replays": [],
            "rows": [],
            "flagged": [],  # how many samples of all processes were queued
            "losses": [],
        }

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.record["loaded"] = module.selector.state_dict()
        step = module.selector.step

        def recorded(indexes, feats, targets, n_replayed=0, **processes):
            self.record["rows"].append(len(indexes))
            self.record["replays"].append(indexes[len(indexes) - n_replayed :].tolist())
            return step(indexes, feats, targets, n_replayed, **processes)

        module.selector.step = recorded
        push = module.selector.queue.push

        def pushed(indexes):
            indexes = list(indexes)
            self.n_flagged += len(indexes)
            push(indexes)

        module.selector.queue.push = pushed
        self.n_flagged = 0

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.record["queues"].append(module.selector.queue.state_dict())

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        state = module.selector.state_dict()
        self.record["digests"].append(digest(state))
        self.record["flagged"].append(self.n_flagged)
        self.n_flagged = 0
        self.record["losses"].append(float(outputs["loss"]))

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 1 and trainer.max_epochs > 2:
            trainer.save_checkpoint(self.path)


def run(name: str, folder: Path, tiny: list[str], options: list[str]) -> None:
    """Train once and write what was recorded."""
    model, whole = model_and_loader(CONFIGS, overrides_of(tiny, options))
    for network in (networks.student(model), networks.teacher(model)):
        network.blocks = network.blocks[:2]  # of 12, for time
    if "unlike" in options:  # each rounds in its own way
        score = model.selector.scorer.ood_score
        model.selector.scorer.ood_score = lambda *given: score(*given) * (1 + 1e-4 * RANK)
    steps = Steps(folder / f"{name}-{WORLD}.ckpt")
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    trainer = Trainer(
        accelerator="cpu",
        devices=local,
        num_nodes=WORLD // local,
        strategy="ddp" if WORLD > 1 else "auto",
        max_epochs=model.max_epochs,
        use_distributed_sampler="padded" in options,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[steps],
    )
    resumed = [option for option in options if option.endswith(".ckpt")]
    trainer.fit(model, loader_of(whole, options), ckpt_path=resumed[0] if resumed else None)
    weights = dict(model.state_dict())  # student, teacher and the center of the loss
    steps.record["selector"] = model.selector.state_dict()
    steps.record["weights"] = weights if RANK == 0 else digest(weights)
    torch.save(steps.record, folder / f"{name}-{WORLD}-{RANK}.pt")


def main(folder: str, runs: str) -> None:
    tiny, *named = json.loads(runs)
    for name, *options in named:
        run(name, Path(folder), tiny, options)


if __name__ == "__main__":
    main(*sys.argv[1:])
