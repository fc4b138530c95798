"""The columns of the table: what each one runs, and by which results it is judged."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compat import observer
from compat.hosts import ROOT, Host
from compat.program import Failed, run
from solo_ood.data.digits import digits_lt

CHANCE, ENOUGH = 10, 30  # k-NN accuracy in %: of a guess among 10 digits, and what is asked for
EPOCHS, STEPS = 2, 30  # of the pre-training that the other columns build on
LAUNCHER = "through the launcher `python -m solo_ood SCRIPT`"
CALLBACK = "by the callback `AutoUMAP` while training: the release has no UMAP script"

# `++`: whether or not the config has the key. For every script that Hydra configures:
COMMON = ["++data.dataset=custom", "++data.format=image_folder", "++data.num_workers=0",
          "++accelerator=cpu", "++devices='1'", "++strategy=auto", "++sync_batchnorm=False",
          "++precision=32", "++wandb.enabled=False", "++auto_resume.enabled=False",
          "++enable_progress_bar=False", "++limit_val_batches=2"]  # fmt: skip
PRETRAIN = ["++optimizer.batch_size=8", f"++max_epochs={EPOCHS}", f"++limit_train_batches={STEPS}",
            "++check_val_every_n_epoch=1", "++log_every_n_steps=5", "++scheduler.warmup_epochs=1",
            "++checkpoint.enabled=True", "++checkpoint.dir=trained_models",
            "++method_kwargs.proj_hidden_dim=32", "++method_kwargs.proj_output_dim=16",
            "++method_kwargs.num_prototypes=32",
            # the detector is ready within these few steps, and flags enough to be replayed
            "++method_kwargs.ood.start=0.0", "++method_kwargs.ood.scorer.n_reference=64",
            "++method_kwargs.ood.scorer.min_samples=16", "++method_kwargs.ood.threshold.n=16",
            "++method_kwargs.ood.threshold.percentile=0.8"]  # fmt: skip
LINEAR = ["++optimizer.batch_size=32", "++max_epochs=1", "++limit_train_batches=3",
          "++log_every_n_steps=1", "++checkpoint.enabled=False"]  # fmt: skip
DDP = ["++strategy=ddp", "++devices='2'"]


@dataclass(frozen=True)
class Row:
    """A host that is ready to run.

    Attributes:
        python: the interpreter of its environment.
        path: folders for PYTHONPATH.
        tree: the checkout; this project for the release.
        folder: where its runs are kept.
        logs: where their output is kept.
        timeout: seconds after which a run counts as hanging.
    """

    host: Host
    python: Path
    path: tuple[Path, ...]
    tree: Path
    folder: Path
    logs: Path
    timeout: float
    env: dict[str, str]

    def start(self, column: str) -> Path:
        """Return an empty folder for the column's run."""
        folder = self.folder / column
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def call(self, column: str, *command: object) -> str:
        """Run python with ``command`` in the column's folder; return the output."""
        cwd = self.folder / column
        env = {
            **self.env,
            "PYTHONPATH": os.pathsep.join(map(str, self.path)),
            observer.FOLDER: str(cwd / "observed"),
        }
        log = self.logs / f"{self.host.key}-{column}.log"
        return run([self.python, *command], cwd, log, self.timeout, env)

    def script(self, name: str) -> Path:
        """Return one of the host's scripts."""
        return (ROOT / "scripts" if self.host.release else self.tree) / name

    def checkpoint(self, column: str = "pretrain") -> Path:
        """Return the one checkpoint that a run has left."""
        found = sorted((self.folder / column).glob("trained_models/dino_ood/*/*.ckpt"))
        if len(found) != 1:
            raise Failed(f"{len(found)} checkpoints of the run `{column}` instead of 1")
        return found[0]

    def logged(self, column: str, name: str) -> list[tuple[int, int, float]]:
        """Return (epoch, step, value) of a logged quantity."""
        found = []
        for path in (self.folder / column).rglob("metrics.csv"):
            with path.open() as lines:
                for row in csv.DictReader(lines):
                    if row.get(name):
                        found.append((int(row["epoch"]), int(row["step"]), float(row[name])))
        if not found:
            raise Failed(f"no {name} was logged")
        return found

    def observed(self, column: str, rank: int = 0) -> dict[str, Any]:
        """Return what the callback in process ``rank`` saw."""
        path = self.folder / column / f"observed/{rank}.json"
        if not path.is_file():
            raise Failed(f"process {rank} did not reach the end of training")
        return json.loads(path.read_text())


def ready(row: Row) -> bool:
    """Whether the checkpoint is there that other columns start from."""
    try:
        return row.checkpoint().is_file()
    except Failed:
        return False


def _train(
    row: Row,
    column: str,
    *overrides: str,
    script: Path | None = None,
    config_dir: Path | None = None,
) -> None:
    row.start(column)
    where = ["--config-name", "dino_ood"]
    if row.host.in_tree:
        where += ["--config-path", str(row.tree / "scripts/pretrain/cifar")]
    if config_dir is not None:
        where += ["--config-dir", str(config_dir)]
    data = [f"++data.{split}_path={digits_lt(split)}" for split in ("train", "val")]
    script = script or row.script("main_pretrain.py")
    row.call(column, script, *where, *COMMON, *PRETRAIN, *data, *overrides)


def pretrain(row: Row) -> str | None:
    """A checkpoint is left and the detector has flagged something."""
    _train(row, "pretrain")
    row.checkpoint()
    if not any(rate > 0 for _, _, rate in row.logged("pretrain", "ood/flag_rate")):
        raise Failed("the logged ood/flag_rate is 0 throughout")
    method = row.observed("pretrain")["method"]
    if method.partition(".")[0] != ("solo" if row.host.in_tree else "solo_ood"):
        raise Failed(f"the method was that of {method}")
    return None


def resume(row: Row) -> str | None:
    """The next epoch and step follow the checkpoint's."""
    last = row.observed("pretrain")["last_step"]
    checkpoint = f"++resume_from_checkpoint='{row.checkpoint()}'"
    _train(row, "resume", checkpoint, f"++max_epochs={EPOCHS + 1}")
    seen = row.observed("resume")
    if (seen["first_epoch"], seen["first_step"]) != (EPOCHS, last):
        got = f"epoch {seen['first_epoch']}, step {seen['first_step']}"
        raise Failed(f"it went on at {got} instead of epoch {EPOCHS}, step {last}")
    if seen["last_step"] != last + STEPS or f"ep={EPOCHS}." not in row.checkpoint("resume").name:
        raise Failed(f"it ended at step {seen['last_step']} instead of {last + STEPS}")
    epochs, steps, _ = zip(*row.logged("resume", "dino_loss_step"))
    if set(epochs) != {EPOCHS} or min(steps) < last:
        raise Failed(f"epochs {sorted(set(epochs))} and steps from {min(steps)} on were logged")
    return None


def linear(row: Row) -> str | None:
    """A validation accuracy comes out."""
    row.start("linear")
    where, more = ["--config-name", "dino_ood_linear"], []
    if row.host.in_tree:
        where = ["--config-path", str(row.tree / "scripts/linear/imagenet-100")]
        where += ["--config-name", "dino"]
        more = ["++pretrain_method=dino_ood"]
    data = [f"++data.train_path={digits_lt('reference')}", f"++data.val_path={digits_lt('val')}"]
    more.append(f"++pretrained_feature_extractor='{row.checkpoint()}'")
    script = row.script("main_linear.py")
    printed = row.call("linear", script, *where, *COMMON, *LINEAR, *data, *more)
    if not row.host.release:
        row.logged("linear", "val_acc1")
    elif not re.search(r"linear accuracy, %: All +[\d.]+", printed):  # it keeps no log
        raise Failed("no accuracy was printed")
    return None


def _evaluate(row: Row, column: str, script: str, *arguments: object) -> str:
    """Run one of the main branch's argparse scripts on train and val, which have nothing shared."""
    launcher = ["-m", "solo_ood"] if row.host.launcher else []
    paths = [f"--{split}_data_path={digits_lt(split)}" for split in ("train", "val")]
    return row.call(
        column, *launcher, row.script(script), "--dataset=custom", *paths, "--batch_size=32",
        "--num_workers=0", f"--pretrained_checkpoint_dir={row.checkpoint().parent}", *arguments,
    )  # fmt: skip


def knn(row: Row) -> str | None:
    """An accuracy that is far from chance is printed."""
    row.start("k-NN")
    if row.host.release:
        folder = row.checkpoint().parent
        printed = row.call("k-NN", row.script("main_knn.py"), "--pretrained_checkpoint_dir", folder)
        found = re.findall(r"k-NN accuracy, % .*: All +([\d.]+)", printed)
    else:
        how = ["--k", 5, "--temperature", 0.07, "--distance_function", "cosine"]
        printed = _evaluate(row, "k-NN", "main_knn.py", *how, "--feature_type", "backbone")
        found = re.findall(r"Result: acc@1=([\d.]+)", printed)
    if len(found) != 1 or float(found[0]) <= ENOUGH:
        raise Failed(f"accuracy {', '.join(found) or 'missing'} %; chance is {CHANCE} %")
    return LAUNCHER if row.host.launcher else None


def umap(row: Row) -> str | None:
    """PDF files with a picture are written."""
    if row.host.release:
        script = Path(__file__).with_name("release_umap.py")
        _train(row, "UMAP", "++max_epochs=1", "++limit_val_batches=1.0", script=script)
        expected = 1
    else:
        row.start("UMAP")
        _evaluate(row, "UMAP", "main_umap.py")
        expected = 2
    found = [path for path in (row.folder / "UMAP").rglob("*.pdf") if path.stat().st_size > 1000]
    if len(found) != expected:
        raise Failed(f"{len(found)} PDF files instead of {expected}")
    return CALLBACK if row.host.release else LAUNCHER if row.host.launcher else None


def ddp(row: Row) -> str | None:
    """Two processes end with the same detector; one of them has written the checkpoint."""
    _train(row, "DDP", *DDP)
    row.checkpoint("DDP")
    row.logged("DDP", "ood/flag_rate")
    first, second = row.observed("DDP", 0), row.observed("DDP", 1)
    if first["processes"] != 2 or not first["state"]:
        raise Failed(f"{first['processes']} processes, {len(first['state'])} entries of state")
    names = first["state"].keys() | second["state"].keys()
    differing = [n for n in sorted(names) if first["state"].get(n) != second["state"].get(n)]
    if differing:
        raise Failed(f"the processes differ in {', '.join(differing[:3])}")
    return None


def multi_crop(row: Row) -> str | None:
    """The loss gets 2 global and 4 local crops and is finite."""
    if row.host.in_tree:  # its config takes them from a group
        config = row.folder / "config"
        (config / "augmentations").mkdir(parents=True, exist_ok=True)
        pipelines = [_pipeline(32, 2, 0.4, 1.0), _pipeline(24, 4, 0.15, 0.4)]
        (config / "augmentations/six_crops.yaml").write_text(json.dumps(pipelines))
        _train(row, "multi-crop", "augmentations=six_crops", config_dir=config)
    else:
        _train(row, "multi-crop", "augmentations.1.num_crops=4")
    crops = row.observed("multi-crop")["crops"]
    if crops != [6]:
        raise Failed(
            f"the loss got {', '.join(f'{n:g}' for n in crops) or 'no'} crops instead of 6"
        )
    if not all(math.isfinite(loss) for _, _, loss in row.logged("multi-crop", "dino_loss_step")):
        raise Failed("the DINO loss was not finite")
    return None


def _pipeline(size: int, number: int, smallest: float, largest: float) -> dict[str, Any]:
    """A pipeline of augmentations that only crops."""
    others = ("grayscale", "gaussian_blur", "solarization", "equalization", "horizontal_flip")
    jitter = {"prob": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    return {
        "rrc": {"enabled": True, "crop_min_scale": smallest, "crop_max_scale": largest},
        "color_jitter": jitter,
        **{name: {"prob": 0.0} for name in others},
        "crop_size": size,
        "num_crops": number,
    }


# In the order of the table. The first one makes the checkpoint for `NEED_CHECKPOINT`.
COLUMNS: dict[str, Callable[[Row], str | None]] = {
    "pretrain": pretrain,
    "resume": resume,
    "linear": linear,
    "k-NN": knn,
    "UMAP": umap,
    "DDP": ddp,
    "multi-crop": multi_crop,
}
NEED_CHECKPOINT = ("resume", "linear", "k-NN", "UMAP")
