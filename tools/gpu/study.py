"""Pre-train the arms of a study side by side on one machine and evaluate each: a stage of the kit.

    python study.py --data cifar10-jpeg.tar.gz --out results --seeds 0 --epochs 100

``--data`` holds an ImageFolder ``*/train`` and ``*/test``. A seed draws the order of the classes
(which are frequent, which rare), the images of the long-tailed training set, and all that is random
in training; the arms of a seed share them, so that arms are compared in pairs. Features are probed
with balanced images that no arm was trained on. A result that is there already is not made again;
where training does not end within ``--limit``, less what evaluation takes, the newest checkpoint is
evaluated, and the result says of which epoch it is.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tarfile
import time
from argparse import ArgumentParser, Namespace
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from solo_ood.data.longtail import longtail
from solo_ood.pages import markdown
from solo_ood.selection.classes import class_groups

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
OOD = "method_kwargs.ood."
# The network and crops of solo-learn's scripts/pretrain/cifar/dino.yaml; 2 crops, no local ones.
NETWORK = [
    "backbone.name=resnet18", "++backbone.kwargs.cifar=True",
    "method_kwargs.proj_hidden_dim=2048", "method_kwargs.proj_output_dim=256",
    "method_kwargs.num_prototypes=4096",
    "method_kwargs.warmup_teacher_temperature=0.04", "method_kwargs.teacher_temperature=0.07",
    "augmentations.0.crop_size=32", "augmentations.0.rrc.crop_min_scale=0.08",
    "augmentations.0.color_jitter.saturation=0.2", "augmentations.0.color_jitter.hue=0.1",
    "augmentations.0.grayscale.prob=0.2", "augmentations.0.gaussian_blur.prob=0.0",
    "augmentations.0.solarization.prob=0.1", "augmentations.0.horizontal_flip.prob=0.5",
    "augmentations.1.num_crops=0",
]  # fmt: skip
RECIPES = {
    "adamw": ["optimizer.lr=1e-3", "optimizer.weight_decay=1e-4", "momentum.base_tau=0.99"],
    "lars": [
        "optimizer.name=lars", "optimizer.lr=0.3", "optimizer.weight_decay=1e-6",
        "++optimizer.kwargs.clip_lr=True", "++optimizer.kwargs.eta=0.02",
        "++optimizer.kwargs.exclude_bias_n_norm=True", "momentum.base_tau=0.99",
    ],
}  # fmt: skip
ARMS = {
    "off": ["ood=off"],
    "random": ["ood=random"],
    "knn": ["ood=default"],
    "exemplar": ["ood=exemplar"],  # of N_EXEMPLARS rare pictures, see overrides_of
    "oracle": ["ood=oracle"],
}
N_EXEMPLARS = 10
EVALUATION = 80  # seconds that are kept for it
CONSOLE = "from solo_ood.cli import main; main()"
LOGGED = ("flag_rate", "lift", "precision", "distinct_replayed", "replays_per_sample")
TINY = [
    "method_kwargs.proj_hidden_dim=32",
    "method_kwargs.proj_output_dim=16", "method_kwargs.num_prototypes=32",
    f"{OOD}start=0", f"{OOD}scorer.min_samples=16", f"{OOD}scorer.n_reference=32",
    f"{OOD}threshold.n=16", f"{OOD}threshold.percentile=0.8",
]  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    arm: str
    seed: int
    epochs: int
    recipe: str

    @property
    def name(self) -> str:
        return f"{self.recipe}-{self.epochs}-{self.arm}-{self.seed}"


class Study:
    """The runs of a command line.

    Args:
        args: its arguments.
    """

    def __init__(self, args: Namespace) -> None:
        self.args, self.start = args, time.monotonic()
        self.work: Path = args.work
        self.out: Path = args.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.cuda = torch.cuda.is_available()
        self.source = self._unpacked()
        self.runs = [
            Run(arm, seed, args.epochs, recipe)
            for seed in args.seeds
            for arm in args.arms
            for recipe in args.recipes
        ]
        self.jobs = args.jobs or len(self.runs)

    def _unpacked(self) -> Path:
        folder = self.work / "source"
        if not folder.exists():
            folder.mkdir(parents=True)
            with tarfile.open(self.args.data) as archive:
                archive.extractall(folder, filter="data")
        return next(folder.glob("**/train")).parent

    def longtailed(self, seed: int) -> tuple[Path, list[str]]:
        """Return the data of a seed and its classes, the most frequent first."""
        folder = self.work / f"longtail-{seed}"
        order = self.work / f"longtail-{seed}.json"
        if not order.exists():
            args = self.args
            classes = longtail(
                self.source / "train", folder, args.imbalance, seed, args.reference, args.largest
            )
            order.write_text(json.dumps(classes))
        return folder, json.loads(order.read_text())

    def overrides_of(self, run: Run, folder: Path, out: Path) -> list[str]:
        """Return the run's settings, as Hydra overrides of ``dino_ood.yaml``."""
        workers = max(1, (os.cpu_count() or 1) // min(self.jobs, len(self.runs)) - 1)
        settings = [
            *NETWORK,
            *RECIPES[run.recipe],
            *ARMS[run.arm],
            *(TINY if self.args.quick else []),
        ]
        settings += [
            f"+seed={run.seed}", f"name={run.arm}", f"checkpoint.dir={out}",
            f"checkpoint.frequency={max(1, (run.epochs - 1) // 11)}",  # at 100 epochs the last too
            f"data.train_path={folder / 'train'}", "data.val_path=null",
            f"optimizer.batch_size={8 if self.args.quick else self.args.batch_size}",
            f"data.num_workers={workers}", f"max_epochs={run.epochs}",
            f"scheduler.warmup_epochs={max(1, run.epochs // 10)}",
            f"++method_kwargs.warmup_teacher_temperature_epochs={round(run.epochs * 0.3)}",
            f"accelerator={'gpu' if self.cuda else 'cpu'}",
            f"precision={'bf16-mixed' if self.cuda else 32}", "+enable_progress_bar=False",
        ]  # fmt: skip
        if run.arm == "exemplar":
            settings.append(f"{OOD}scorer.exemplars={self.exemplars(folder, run.seed)}")
        return settings

    def exemplars(self, folder: Path, seed: int) -> list[int]:
        """Return the dataset indexes of a few pictures of the Few classes, drawn by the seed."""
        classes = sorted(entry.name for entry in (folder / "train").iterdir())
        images = [len(list((folder / "train" / name).iterdir())) for name in classes]
        targets = np.repeat(np.arange(len(classes)), images)  # as an ImageFolder counts
        rare = np.flatnonzero(np.isin(targets, class_groups(targets)["Few"]))
        rng = np.random.default_rng(seed)
        return sorted(rng.permutation(rare)[:N_EXEMPLARS].tolist())

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.args.limit - (time.monotonic() - self.start)

    def call(self, log: Path, seconds: float, *command: object, threads: int = 1) -> None:
        """Run a program, its output in ``log``.

        Raises:
            subprocess.CalledProcessError: if it fails.
            subprocess.TimeoutExpired: if it does not end in time.
        """
        with log.open("a") as file:
            subprocess.run(
                [sys.executable, "-W", "ignore", *map(str, command)],
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                stdout=file,
                stderr=subprocess.STDOUT,
                check=True,
                timeout=max(1.0, seconds),
            )

    def make(self, run: Run) -> str:
        """Train and evaluate one run; return what became of it, in a line."""
        result = self.out / f"{run.name}.json"
        if result.exists():
            return f"{run.name}: was there"
        folder, order = self.longtailed(run.seed)
        out, log = self.work / run.name, self.out / f"{run.name}.log"
        started = time.monotonic()
        program = SCRIPTS / "main_pretrain.py"
        overrides = self.overrides_of(run, folder, out)
        try:
            try:
                seconds = self.left() - EVALUATION
                self.call(log, seconds, program, "--config-name", "dino_ood", *overrides)
            except subprocess.TimeoutExpired:
                print(f"{run.name}: training stopped at the limit", flush=True)
            trained = time.monotonic() - started
            checkpoints = out.glob("dino_ood/*/*.ckpt")
            newest = max(checkpoints, key=lambda path: path.stat().st_mtime, default=None)
            if newest is None:
                return f"{run.name}: no checkpoint"
            self.call(
                log, self.left(), "-c", CONSOLE, "evaluate", newest, "--weights", "teacher",
                "--train", folder / "train", "--val", self.source / "test",
                "--held-out", folder / "reference", "--references", "held-out",
                "--cache", self.work / "cache" / run.name,
                "--batch-size", 512, "--accelerator", "gpu" if self.cuda else "cpu",
                "--num-workers", 2, "--out", out / "evaluation", threads=4,
            )  # fmt: skip
        except subprocess.SubprocessError as error:
            last = log.read_text().strip().splitlines()[-1:]
            return f"{run.name}: not finished, {type(error).__name__}: {' '.join(last)[:300]}"
        found: dict[str, Any] = {
            **vars(run),
            "classes": order,
            "images": sum(1 for _ in (folder / "train").glob("*/*")),
            "seconds": {"train": trained, "all": time.monotonic() - started},
            "device": torch.cuda.get_device_name() if self.cuda else "cpu",
            "checkpoint": newest.name,
            "logged": last_logged(newest.parent / "metrics.csv"),
            "figures": json.loads((out / "evaluation" / "evaluation.json").read_text())["figures"],
        }
        result.write_text(json.dumps(found, indent=1))
        return f"{run.name}: {found['seconds']['all']:.0f} s"

    def run(self) -> int:
        """Make all runs; print a line of each and the table. Returns how many are missing."""
        for seed in self.args.seeds:  # not in several threads at once
            self.longtailed(seed)
        with ThreadPoolExecutor(self.jobs) as pool:
            for line in pool.map(self.make, self.runs):
                print(line, flush=True)
        print(table(self.out))
        return sum(not (self.out / f"{run.name}.json").exists() for run in self.runs)


def last_logged(path: Path) -> dict[str, float]:
    """Return the last value of what the detector and the queue logged."""
    found: dict[str, float] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for key in LOGGED:
                if row.get(f"ood/{key}"):
                    found[key] = float(row[f"ood/{key}"])
    return found


def table(results: Path) -> str:
    """Return the teacher's accuracies of all runs in a folder, as Markdown."""
    rows = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    columns = ("All", "Many", "Medium", "Few")
    lines = []
    for row in rows:
        ended = row["checkpoint"].rsplit("=", 1)[-1].removesuffix(".ckpt")
        name = f"{row['recipe']}-{row['epochs']}-{row['arm']}-{row['seed']}, epoch {ended}"
        for figure in row["figures"]:
            cells = [f"{figure.get(column, float('nan')):.1f}" for column in columns]
            lines.append([name, figure["method"], *cells])
    return markdown.table(["run", "probe", *columns], lines)


def main() -> None:
    here = Path(os.environ.get("TMPDIR", "/tmp"))
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="a tar of an ImageFolder train and test")
    add("--out", type=Path, required=True, help="folder of a JSON and a log per run")
    add("--work", type=Path, default=here / "solo-ood-study", help="data, checkpoints, features")
    add("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    add("--recipes", nargs="+", choices=RECIPES, default=["adamw"])
    add("--seeds", nargs="+", type=int, default=[0])
    add("--epochs", type=int, default=100)
    add("--imbalance", type=float, default=100)
    add("--reference", type=int, default=500, help="images per class to probe with")
    add("--largest", type=int, default=0, help="images of the largest class; default: all others")
    add("--jobs", type=int, default=0, help="runs side by side; default: all")
    add("--limit", type=float, default=3600, help="seconds for everything")
    add("--batch-size", type=int, default=256)
    add("--quick", action="store_true", help="tiny networks and batches, for its test")
    sys.exit(Study(parser.parse_args()).run())


if __name__ == "__main__":
    main()
