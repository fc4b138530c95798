"""Images to damage, what a run of them said, workers to kill: what tests of faults share."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from pathlib import Path

import pytest
from lightning.pytorch import Callback, seed_everything
from repository import NO_WIDTH
from torch.utils.data import DataLoader

from solo_ood.selection.rare_queue import RareQueue

OOD = "++method_kwargs.ood."
FAST = [  # transformers have no BatchNorm: a bad row stays one row
    NO_WIDTH,
    "backbone.name=vit_tiny",
    "+backbone.kwargs.patch_size=16",
    "+backbone.kwargs.img_size=32",
    "+backbone.kwargs.mlp_ratio=0.5",
    "augmentations.1.num_crops=0",
    "augmentations.1.crop_size=32",
    "max_epochs=9",  # as many as any test trains
    "method_kwargs.ood.scorer.min_samples=8",
    "method_kwargs.ood.threshold.n=8",
]
STREAM = range(40)  # rows of the 48 that the train loader reads; only replays read the others
DAMAGE = ("missing", "truncated", "empty", "text")
NEVER_LEAVE = (f"{OOD}queue.release=0", f"{OOD}queue.max_replays=null")


def damage(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"x"}[how])


def write_images(folder: Path) -> list[Path]:
    """Write 48 digits of two classes as JPEGs; return their paths, ordered as in an ImageFolder."""
    from PIL import Image
    from sklearn.datasets import load_digits

    paths = []
    for number, image in enumerate(load_digits().images[:48]):
        path = folder / "train" / f"{number // 24}" / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9).astype("uint8")).resize((32, 32)).save(path, quality=95)
        paths.append(path)
    return paths


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path)


@pytest.fixture
def prepared(images, compose, build, loader):
    """Return a model and the train loader over the rows ``STREAM`` of ``images``."""

    def made(*overrides, rows=STREAM):
        train = images[0].parents[1]
        cfg = compose(*FAST, f"data.train_path={train}", f"data.val_path={train}", *overrides)
        seed_everything(1)
        return build(cfg), stream(loader(cfg), rows)

    return made


def stream(whole: DataLoader, rows=STREAM) -> DataLoader:
    """Return the host's loader with some rows only, in their order."""
    return DataLoader(
        whole.dataset, batch_size=8, sampler=list(rows), num_workers=whole.num_workers,
        collate_fn=whole.collate_fn, drop_last=True,
    )  # fmt: skip


class At(Callback):
    """Do something with the module and the batch before the steps that are keys."""

    def __init__(self, actions):
        self.actions = actions

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step in self.actions:
            self.actions[trainer.global_step](module, batch)


class Steps(Callback):
    """Record the losses, and the crops that reach the student: their number, finite or not."""

    def on_train_start(self, trainer, module):
        from solo_ood.host import networks

        self.losses, self.rows, self.finite = [], set(), True
        networks.student(module).register_forward_pre_hook(self.record)

    def record(self, student, crops):
        self.rows.add(len(crops[0]))
        self.finite &= bool(crops[0].isfinite().all())

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))


class Said:
    """Collect the warnings of this package, of the kind that no filter of ours makes an error."""

    def __enter__(self):
        self.catcher = warnings.catch_warnings(record=True)
        self.caught = self.catcher.__enter__()
        warnings.simplefilter("always")
        return self

    def __exit__(self, *error):
        self.catcher.__exit__(*error)

    @property
    def texts(self):
        ours = [w for w in self.caught if "solo_ood" in w.filename or "tests" in w.filename]
        assert all(w.category is RuntimeWarning for w in ours)
        return [str(w.message) for w in ours]


@pytest.fixture
def kill_workers():
    """Kill the worker processes that were started since the test began."""
    before = set(multiprocessing.active_children())

    def kill(*_):
        workers = set(multiprocessing.active_children()) - before
        assert workers
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
        time.sleep(0.5)  # torch's handler of SIGCHLD must not end the run here

    return kill


def queue_of(indexes, **kwargs) -> RareQueue:
    queue = RareQueue(capacity=48, **kwargs)
    queue.push(indexes)
    return queue


@pytest.fixture
def whole(images, compose, loader):
    """The host's loader over all images."""
    train = images[0].parents[1]
    return loader(compose(f"data.train_path={train}", f"data.val_path={train}"))


def fill_queue(module, batch):
    module.selector.queue.push(range(40, 48))
