"""Train arms of the study ``cifar10-lt`` side by side on one GPU: a stage of the kit.

    python study.py --data cifar10-jpeg.tar.gz --out results/study --seeds 1 --epochs 40

It is ``solo-ood study`` with the arms, seeds and epochs that fit the machine's time. ``--data``
holds an ImageFolder ``*/train`` and ``*/test``. ``--out`` gets tables and cells; the same call
makes what is missing and goes on with a cell that a limit stopped, as long as its folder ``work``
is there.
"""

from __future__ import annotations

import os
import sys
import tarfile
from argparse import ArgumentParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import yaml

ARMS = ["off", "random", "exemplar", "oracle"]
CONSOLE = "from solo_ood.cli import main; main()"
TINY = [
    "+backbone.kwargs.width=8", "method_kwargs.proj_hidden_dim=32", "optimizer.batch_size=8",
    "method_kwargs.proj_output_dim=16", "method_kwargs.num_prototypes=32",
    "method_kwargs.ood.start=0", "method_kwargs.ood.scorer.min_samples=16",
    "method_kwargs.ood.scorer.n_reference=32", "method_kwargs.ood.threshold.n=16",
    "method_kwargs.ood.threshold.percentile=0.8",
]  # fmt: skip


def plan(arms: list[str], seeds: int, epochs: int, quick: bool) -> dict[str, Any]:
    """Return the study: that of the package, with what the machine's time allows."""
    text = (files("solo_ood.configs.study") / "cifar10-lt.yaml").read_text(encoding="utf-8")
    study: dict[str, Any] = yaml.safe_load(text)
    study["arms"] = {arm: study["arms"][arm] for arm in arms}
    study["against"] = [arm for arm in ("random", "off") if arm in arms][: len(arms) - 1]
    study["seeds"] = seeds
    on_gpu = torch.cuda.is_available()
    workers = max(1, (os.cpu_count() or 1) // (len(arms) * seeds) - 1)
    study["overrides"] += [
        f"accelerator={'gpu' if on_gpu else 'cpu'}",
        f"precision={'bf16-mixed' if on_gpu else 32}",
        f"data.num_workers={0 if quick else workers}",
        f"max_epochs={epochs}",
        f"scheduler.warmup_epochs={max(1, epochs // 10)}",
        f"++method_kwargs.warmup_teacher_temperature_epochs={round(epochs * 0.3)}",
        *(TINY if quick else []),
    ]
    if quick:
        study["overrides"].remove("++backbone.kwargs.cifar=True")  # its stem has 64 channels
        study["data"].update(imbalance=2, largest=14, reference=10)
    return study


def unpacked(archive: Path, folder: Path) -> Path:
    """Return the folder of ``train`` and ``test`` of a tar."""
    if not folder.exists():
        folder.mkdir(parents=True)
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return next(folder.glob("**/train")).parent


def main() -> None:
    here = Path(os.environ.get("TMPDIR", "/tmp"))
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="a tar of an ImageFolder train and test")
    add("--out", type=Path, required=True, help="folder of tables and cells")
    add("--arms", nargs="+", default=ARMS, help="of the study cifar10-lt")
    add("--seeds", type=int, default=1)
    add("--epochs", type=int, default=40)
    add("--quick", action="store_true", help="tiny networks and batches, for its test")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    written = args.out / "study.yaml"
    study = plan(args.arms, args.seeds, args.epochs, args.quick)
    written.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    data = unpacked(args.data, here / "solo-ood-study")
    words = ["study", written, "--data", data, "--out", args.out]
    words += ["--jobs", args.seeds * len(args.arms)]
    # In place of this process, so that a limit ends the study and not only its caller.
    os.execv(sys.executable, [sys.executable, "-W", "ignore", "-c", CONSOLE, *map(str, words)])


if __name__ == "__main__":
    main()
