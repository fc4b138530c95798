"""Stage ``scripts``: solo-learn's four scripts, unmodified, on the CPU and on real digits.

Twice: with this package as a plugin of a solo-learn that has only the series' repairs, and with the
method inside solo-learn where this package is absent.
"""

from __future__ import annotations

import csv
import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from upstream.common import Done, Result, Work, say

CHANCE, ENOUGH = 10, 30  # k-NN accuracy in %: of a guess, and what the test asks for
SMALL = [
    "optimizer.batch_size=16", "data.num_workers=0", "max_epochs=2",
    "method_kwargs.proj_hidden_dim=32", "method_kwargs.proj_output_dim=16",
    "method_kwargs.num_prototypes=32",
    "++check_val_every_n_epoch=1", "++log_every_n_steps=5", "++limit_val_batches=2",
]  # fmt: skip
# The detector must be ready within the few steps of such a run.
EARLY = [
    "++method_kwargs.ood.start=0.0", "++method_kwargs.ood.scorer.n_reference=64",
    "++method_kwargs.ood.scorer.min_samples=16", "++method_kwargs.ood.threshold.n=16",
    "++method_kwargs.ood.threshold.percentile=0.8",
]  # fmt: skip
# What every run of a shipped config on a machine without GPU needs.
ON_CPU = ["accelerator=cpu", "devices=1", "strategy=auto", "sync_batchnorm=False", "precision=32",
          "++wandb.enabled=False"]  # fmt: skip
# The configs' learning rates diverge on the features of so short a pre-training.
SHORT_LINEAR = [
    "max_epochs=1", "optimizer.lr=1e-5", "optimizer.batch_size=32", "data.num_workers=0",
    "++limit_train_batches=20", "++log_every_n_steps=5",
]  # fmt: skip
# Prints whether solo-learn would be offered the plugin, and whether Python can import it.
PRESENCE = """
from importlib.metadata import entry_points
print(any(e.name == "dino_ood" for e in entry_points(group="solo.methods")), end=" ")
try:
    import solo_ood
except ImportError:
    print(False)
else:
    print(True)
"""


@dataclass(frozen=True)
class Setting:
    """Where the method comes from, and the arguments of the scripts with a Hydra config."""

    name: str
    plugged: bool
    tree: Path
    folder: Path
    env: dict[str, str]
    pretrain: list[str]
    linear: list[str]

    def run(self, work: Work, script: str, arguments: list[str], log: str) -> Done:
        """Run ``python SCRIPT ARGUMENTS``."""
        say(f"scripts: {self.name}, {script} ({log})")
        command = [sys.executable, str(self.tree / script), *arguments]
        return work.run(f"{self.name}-{log}", command, self.folder, env=self.env, timeout=1800)

    def checkpoint(self) -> Path:
        """The newest one that pre-training wrote."""
        return self._newest("trained_models/dino_ood/*/*.ckpt")

    def metrics(self, column: str) -> list[tuple[int, float]]:
        """Epoch and value of the newest run's rows that hold a number in this column."""
        log = self._newest("lightning_logs/*/metrics.csv").read_text()
        rows = csv.DictReader(log.splitlines())
        values = [(int(row["epoch"]), float(row[column])) for row in rows if row.get(column)]
        return [(epoch, value) for epoch, value in values if math.isfinite(value)]

    def _newest(self, pattern: str) -> Path:
        found = list(self.folder.glob(pattern))
        _require(bool(found), f"no {pattern}")
        return max(found, key=lambda path: path.stat().st_mtime)


def plugin(work: Work) -> Setting:
    """The repaired solo-learn with this package and its config, which finds its data itself."""
    return Setting(
        "plugin",
        True,
        work.plugin,
        work.fresh("run-plugin"),
        {},
        ["--config-name", "dino_ood", *SMALL, *EARLY, "accelerator=cpu"],
        ["--config-name", "dino_ood_linear", *SHORT_LINEAR, "accelerator=cpu"],
    )


def in_tree(work: Work, data: dict[str, str]) -> Setting:
    """Solo-learn with the method inside and its own configs, which are for CIFAR and ImageNet."""
    digits = ["data.dataset=custom", "data.format=image_folder", *ON_CPU,
              f"data.train_path={data['train']}", f"data.val_path={data['val']}"]  # fmt: skip
    scripts = work.after / "scripts"
    return Setting(
        "in-tree",
        False,
        work.after,
        work.fresh("run-in-tree"),
        work.blocked(),
        ["--config-path", str(scripts / "pretrain/cifar"), "--config-name", "dino_ood",
         *SMALL, *EARLY, *digits],
        ["--config-path", str(scripts / "linear/imagenet-100"), "--config-name", "dino",
         "pretrain_method=dino_ood", *SHORT_LINEAR, *digits],
    )  # fmt: skip


def quoted(key: str, path: Path) -> str:
    """A Hydra override whose value holds ``=``, as the names of checkpoints do."""
    return f"{key}='{path}'"


def presence(work: Work, setting: Setting, data: dict[str, str]) -> str:
    """This package is what makes the difference between the two settings."""
    command = [sys.executable, "-c", PRESENCE]
    done = work.run(f"{setting.name}-presence", command, setting.folder, env=setting.env)
    found = f"announced and importable: {done.output.strip()}"
    _require(done.output.split() == [str(setting.plugged)] * 2, found)
    return found


def pretrain(work: Work, setting: Setting, data: dict[str, str]) -> str:
    done = setting.run(work, "main_pretrain.py", setting.pretrain, "pretrain")
    _require(done.code == 0, f"exit status {done.code}")
    rates = setting.metrics("ood/flag_rate")
    _require(bool(rates), "no ood/flag_rate in metrics.csv")
    return f"{setting.checkpoint().name}, flag rate {rates[-1][1]:.3f}, {done.seconds:.0f} s"


def linear(work: Work, setting: Setting, data: dict[str, str]) -> str:
    extra = quoted("pretrained_feature_extractor", setting.checkpoint())
    done = setting.run(work, "main_linear.py", [*setting.linear, extra], "linear")
    _require(done.code == 0, f"exit status {done.code}")
    _require(bool(setting.metrics("val_acc1")), "no val_acc1 in metrics.csv")
    losses = [loss for _, loss in setting.metrics("train_loss_step")]
    _require(losses[-1:] < losses[:1], f"the training loss does not fall: {losses}")
    return f"training loss {losses[0]:.1f} -> {losses[-1]:.1f}, {done.seconds:.0f} s"


def offline(setting: Setting, data: dict[str, str]) -> list[str]:
    """The arguments that k-NN and UMAP share."""
    return ["--dataset", "custom", "--train_data_path", data["train"], "--val_data_path",
            data["val"], "--batch_size", "32", "--num_workers", "0",
            "--pretrained_checkpoint_dir", str(setting.checkpoint().parent)]  # fmt: skip


def knn(work: Work, setting: Setting, data: dict[str, str]) -> str:
    choices = ["--k", "5", "--temperature", "0.07", "--feature_type", "backbone", "projector",
               "--distance_function", "cosine", "euclidean"]  # fmt: skip
    done = setting.run(work, "main_knn.py", [*offline(setting, data), *choices], "knn")
    _require(done.code == 0, f"exit status {done.code}")
    found = [float(value) for value in re.findall(r"Result: acc@1=([\d.]+)", done.output)]
    _require(len(found) == 4, f"{len(found)} accuracies instead of 4")
    _require(found[0] > ENOUGH, f"{found[0]:.1f} %, expected more than {ENOUGH} (chance {CHANCE})")
    return f"{found[0]:.1f} % (chance {CHANCE}), {done.seconds:.0f} s"


def umap(work: Work, setting: Setting, data: dict[str, str]) -> str:
    done = setting.run(work, "main_umap.py", offline(setting, data), "umap")
    _require(done.code == 0, f"exit status {done.code}")
    sizes = {path.name: path.stat().st_size for path in sorted(setting.folder.glob("*_umap.pdf"))}
    _require(len(sizes) == 2 and min(sizes.values()) > 1000, f"PDFs: {sizes or 'none'}")
    return f"{', '.join(sizes)}, {done.seconds:.0f} s"


def resume(work: Work, setting: Setting, data: dict[str, str]) -> str:
    """One more epoch from the checkpoint, and none of the earlier ones again."""
    extra = ["max_epochs=3", quoted("++resume_from_checkpoint", setting.checkpoint())]
    done = setting.run(work, "main_pretrain.py", [*setting.pretrain, *extra], "resume")
    _require(done.code == 0, f"exit status {done.code}")
    epochs = {epoch for epoch, _ in setting.metrics("ood/flag_rate")}
    _require(epochs == {2}, f"flag rates of epochs {sorted(epochs)} instead of 2 alone")
    return f"{setting.checkpoint().name}, {done.seconds:.0f} s"


def _require(ok: bool, otherwise: str) -> None:
    if not ok:
        raise AssertionError(otherwise)


def attempt(
    step: Callable[[Work, Setting, dict[str, str]], str],
    work: Work,
    setting: Setting,
    data: dict[str, str],
) -> Result:
    """Run one step; whatever it lacks is its failure."""
    check = f"{setting.name}: {step.__name__}"
    try:
        return Result("scripts", check, True, step(work, setting, data))
    except AssertionError as error:
        return Result("scripts", check, False, str(error))


def check_scripts(work: Work) -> list[Result]:
    """Run pre-training, linear, k-NN and UMAP in both settings, and resume in the second."""
    os.environ["SOLO_OOD_CACHE"] = str(work.root / "cache")
    from solo_ood.data.digits import digits_lt

    data = {split: digits_lt(split) for split in ("train", "val")}
    steps = [presence, pretrain, linear, knn, umap]
    first, second = plugin(work), in_tree(work, data)
    return [
        *[attempt(step, work, first, data) for step in steps],
        *[attempt(step, work, second, data) for step in [*steps, resume]],
    ]
