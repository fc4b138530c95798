"""The columns of the table: what each one runs, and by which results it is judged."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matrix.program import Failed, require
from matrix.row import Row
from solo_ood.data.digits import digits_lt

CHANCE, ENOUGH = 10, 30  # k-NN accuracy in %: of a guess among 10 digits, and what is asked for
EPOCHS, STEPS = 2, 30  # of the pre-training that other runs start from
LAUNCHER = "through the launcher `python -m solo_ood SCRIPT`"
CALLBACK = "by the callback `AutoUMAP` while training: the release has no UMAP script"

# `++`: whether or not the config has the key. For every script that Hydra configures:
SHORT = ["++data.num_workers=0", "++accelerator=cpu", "++limit_val_batches=2"]
PRETRAIN = ["++optimizer.batch_size=8", f"++max_epochs={EPOCHS}", f"++limit_train_batches={STEPS}",
            "++check_val_every_n_epoch=1", "++log_every_n_steps=5", "++scheduler.warmup_epochs=1",
            "++method_kwargs.proj_hidden_dim=32", "++method_kwargs.proj_output_dim=16",
            "++method_kwargs.num_prototypes=32",
            # the detector is ready within these few steps, and flags enough to be replayed
            "++method_kwargs.ood.start=0.0", "++method_kwargs.ood.scorer.n_reference=64",
            "++method_kwargs.ood.scorer.min_samples=16", "++method_kwargs.ood.threshold.n=16",
            "++method_kwargs.ood.threshold.percentile=0.8"]  # fmt: skip
LINEAR = ["++max_epochs=1", "++optimizer.batch_size=32", "++limit_train_batches=20",
          "++log_every_n_steps=5"]  # fmt: skip
# What solo-learn's own configs, for CIFAR and ImageNet on GPUs, need here. Ours need nothing.
IN_TREE = ["++data.dataset=custom", "++data.format=image_folder", "++devices='1'",
           "++strategy=auto", "++sync_batchnorm=False", "++precision=32",
           "++wandb.enabled=False"]  # fmt: skip
# Prints whether solo-learn would be offered the plugin, and what of it Python can import.
PRESENCE = """
from importlib import import_module
from importlib.metadata import entry_points
print(any(e.name == "dino_ood" for e in entry_points(group="solo.methods")))
for name in ("solo_ood", "hydra_plugins.solo_ood_searchpath"):
    try:
        import_module(name)
    except ImportError:
        print(False)
    else:
        print(True)
"""


def presence(row: Row) -> None:
    """The package is announced and importable, or all of it is hidden."""
    row.start("presence")
    found = row.call("presence", "-c", PRESENCE).split()
    require(found == [str(row.host.package)] * 3, f"announced, importable, plugin: {found}")


def _digits() -> list[str]:
    return [f"++data.{split}_path={digits_lt(split)}" for split in ("train", "val")]


def _train(
    row: Row,
    column: str,
    *overrides: str,
    script: Path | None = None,
    config_dir: Path | None = None,
) -> None:
    row.start(column)
    where, own = ["--config-name", "dino_ood"], []
    if not row.host.package:
        where += ["--config-path", str(row.tree / "scripts/pretrain/cifar")]
        own = [*IN_TREE, *_digits()]
    if config_dir is not None:
        where += ["--config-dir", str(config_dir)]
    script = script or row.script("main_pretrain.py")
    row.call(column, script, *where, *SHORT, *PRETRAIN, *own, *overrides)


def pretrain(row: Row) -> None:
    """A checkpoint is left and the detector has flagged something."""
    _train(row, "pretrain")
    row.checkpoint()
    flagged = any(rate > 0 for _, _, rate in row.logged("pretrain", "ood/flag_rate"))
    require(flagged, "the logged ood/flag_rate is 0 throughout")
    method = row.observed("pretrain")["method"]
    package = method.partition(".")[0]
    require(package == ("solo_ood" if row.host.package else "solo"), f"the method is {method}")


def resume(row: Row) -> None:
    """The next epoch and step follow the checkpoint's."""
    last = row.observed("pretrain")["last_step"]
    checkpoint = f"++resume_from_checkpoint='{row.checkpoint()}'"
    _train(row, "resume", checkpoint, f"++max_epochs={EPOCHS + 1}")
    seen = row.observed("resume")
    got = f"it went on at epoch {seen['first_epoch']}, step {seen['first_step']}"
    right = (seen["first_epoch"], seen["first_step"]) == (EPOCHS, last)
    require(right, f"{got} instead of epoch {EPOCHS}, step {last}")
    ended = seen["last_step"] == last + STEPS
    require(ended, f"it ended at step {seen['last_step']} instead of {last + STEPS}")
    name = row.checkpoint("resume").name
    require(f"ep={EPOCHS}." in name, f"it left {name}")
    for quantity in ("dino_loss_step", "ood/flag_rate"):
        epochs, steps, _ = zip(*row.logged("resume", quantity))
        right = set(epochs) == {EPOCHS} and min(steps) >= last
        require(right, f"{quantity}: epochs {sorted(set(epochs))}, steps from {min(steps)} on")


def linear(row: Row) -> None:
    """A validation accuracy comes out, and the training loss falls where it is logged."""
    row.start("linear")
    where, own = ["--config-name", "dino_ood_linear"], []
    if not row.host.package:
        where = ["--config-path", str(row.tree / "scripts/linear/imagenet-100")]
        where += ["--config-name", "dino"]
        own = [*IN_TREE, *_digits(), "++pretrain_method=dino_ood", "++checkpoint.enabled=False",
               # its learning rate diverges on the features of so short a pre-training
               "++optimizer.lr=1e-5"]  # fmt: skip
    own.append(f"++pretrained_feature_extractor='{row.checkpoint()}'")
    printed = row.call("linear", row.script("main_linear.py"), *where, *SHORT, *LINEAR, *own)
    if row.host.tree is None:  # it keeps no log
        accuracy = re.search(r"linear accuracy, %: All +[\d.]+", printed)
        return require(accuracy, "no accuracy was printed")
    row.logged("linear", "val_acc1")
    losses = [loss for _, _, loss in row.logged("linear", "train_loss_step")]
    require(losses[-1] < losses[0], f"the training loss does not fall: {losses}")


def _evaluate(row: Row, column: str, script: str, *arguments: object) -> str:
    """Run one of the main branch's argparse scripts on train and val, which have nothing shared."""
    row.start(column)
    launcher = ["-m", "solo_ood"] if row.host.launcher else []
    paths = [f"--{split}_data_path={digits_lt(split)}" for split in ("train", "val")]
    return row.call(
        column, *launcher, row.script(script), "--dataset=custom", *paths, "--batch_size=32",
        "--num_workers=0", f"--pretrained_checkpoint_dir={row.checkpoint().parent}", *arguments,
    )  # fmt: skip


def knn(row: Row) -> str | None:
    """An accuracy that is far from chance is printed."""
    if row.host.tree is None:
        row.start("k-NN")
        folder = row.checkpoint().parent
        printed = row.call("k-NN", row.script("main_knn.py"), "--pretrained_checkpoint_dir", folder)
        found, expected = re.findall(r"k-NN accuracy, % .*: All +([\d.]+)", printed), 1
    else:
        how = ["--k", 5, "--temperature", 0.07, "--feature_type", "backbone", "projector",
               "--distance_function", "cosine", "euclidean"]  # fmt: skip
        printed = _evaluate(row, "k-NN", "main_knn.py", *how)
        found, expected = re.findall(r"Result: acc@1=([\d.]+)", printed), 4
    require(len(found) == expected, f"{len(found)} accuracies instead of {expected}")
    require(float(found[0]) > ENOUGH, f"accuracy {found[0]} %; chance is {CHANCE} %")
    return LAUNCHER if row.host.launcher else None


def umap(row: Row) -> str | None:
    """PDF files with a picture are written."""
    if row.host.tree is None:
        script = Path(__file__).with_name("release_umap.py")
        _train(row, "UMAP", "++max_epochs=1", "++limit_val_batches=1.0", script=script)
        expected = 1
    else:
        _evaluate(row, "UMAP", "main_umap.py")
        expected = 2
    found = [path for path in (row.folder / "UMAP").rglob("*.pdf") if path.stat().st_size > 1000]
    require(len(found) == expected, f"{len(found)} PDF files instead of {expected}")
    return CALLBACK if row.host.tree is None else LAUNCHER if row.host.launcher else None


def ddp(row: Row) -> None:
    """Two processes end with the same detector; one of them has written the checkpoint."""
    _train(row, "DDP", "++strategy=ddp", "++devices='2'")
    row.checkpoint("DDP")
    row.logged("DDP", "ood/flag_rate")
    first, second = row.observed("DDP", 0), row.observed("DDP", 1)
    if first["processes"] != 2 or not first["state"]:
        raise Failed(f"{first['processes']} processes, {len(first['state'])} entries of state")
    names = first["state"].keys() | second["state"].keys()
    differing = [n for n in sorted(names) if first["state"].get(n) != second["state"].get(n)]
    require(not differing, f"the processes differ in {', '.join(differing[:3])}")


def multi_crop(row: Row) -> None:
    """The loss gets 2 global and 4 local crops and is finite."""
    if row.host.package:
        _train(row, "multi-crop", "augmentations.1.num_crops=4")
    else:  # its config takes them from a group
        config = row.folder / "config"
        (config / "augmentations").mkdir(parents=True, exist_ok=True)
        pipelines = [_pipeline(32, 2, 0.4, 1.0), _pipeline(24, 4, 0.15, 0.4)]
        (config / "augmentations/six_crops.yaml").write_text(json.dumps(pipelines))
        _train(row, "multi-crop", "augmentations=six_crops", config_dir=config)
    crops = row.observed("multi-crop")["crops"]
    require(crops == [6], f"the loss got {crops} crops instead of 6")
    losses = [loss for _, _, loss in row.logged("multi-crop", "dino_loss_step")]
    require(all(map(math.isfinite, losses)), "the DINO loss was not finite")


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


@dataclass(frozen=True)
class Run:
    """One column.

    Attributes:
        judge: does it; returns what a reader has to know, raises ``Failed`` for what it lacks.
        from_checkpoint: whether it starts from the checkpoint of ``pretrain``.
        shown: whether it is in the table.
    """

    judge: Callable[[Row], str | None]
    from_checkpoint: bool = False
    shown: bool = True


# In the order of the table.
RUNS = {
    "presence": Run(presence, shown=False),
    "pretrain": Run(pretrain),
    "resume": Run(resume, from_checkpoint=True),
    "linear": Run(linear, from_checkpoint=True),
    "k-NN": Run(knn, from_checkpoint=True),
    "UMAP": Run(umap, from_checkpoint=True),
    "DDP": Run(ddp),
    "multi-crop": Run(multi_crop),
}
