"""Summary and pictures of a finished or running ``dino_ood`` run, from its files alone."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from solo_ood.config import OODConfig, parse
from solo_ood.errors import UserError
from solo_ood.evaluation.groups import format_groups
from solo_ood.export import read_args
from solo_ood.loading import load
from solo_ood.selection import STATE_KEY, RareSelector
from solo_ood.threshold import TrackingThreshold

Curves = dict[str, tuple[list[float], list[float]]]


def report(run: Path, out: Path | None = None, metrics: Path | None = None) -> str:
    """Write the pictures of a run and return a summary for the terminal.

    Args:
        run: folder with a .ckpt and its ``args.json``.
        out: folder for ``queue.png``, ``scores.png``, ``curves.png`` and ``summary.txt``; default
            ``run/report``.
        metrics: Lightning's ``metrics.csv``; default the one in ``run``. Without it there are no
            losses and no curves.

    Raises:
        UserError: if there is no checkpoint, or one without the state of an enabled detector.
    """
    checkpoints = sorted(run.glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not checkpoints or not (run / "args.json").is_file():
        raise UserError(
            "run folder",
            expected="a .ckpt and args.json",
            got=f"{run} without them",
            remedy="Give the folder below trained_models that main_pretrain.py wrote.",
        )
    checkpoint = load(checkpoints[-1])
    cfg = _config(read_args(run))
    ood = parse(OmegaConf.select(cfg, "method_kwargs.ood"))
    selector = _selector(checkpoint.get(STATE_KEY), ood, checkpoints[-1].name)

    curves = read_curves(metrics or run / "metrics.csv")
    out = out or run / "report"
    out.mkdir(parents=True, exist_ok=True)
    samples = _samples(cfg)
    lines = [f"run {run}: epoch {checkpoint['epoch'] + 1}, {checkpoint['global_step']} steps"]
    lines += _loss_lines(curves) + _detector_lines(selector, ood)
    lines += _queue_lines(selector, samples) + _evaluation_lines(run)
    lines += [f"{'pictures':<14}{path}" for path in _pictures(selector, ood, samples, curves, out)]
    text = "\n".join(lines)
    (out / "summary.txt").write_text(text + "\n")
    return text


def _selector(ours: Any, ood: OODConfig, name: str) -> RareSelector:
    """Return the detector that was saved as ``ours`` in the checkpoint ``name``."""
    state = ours.get("selector") if isinstance(ours, dict) else None
    if state is None:
        raise UserError(
            f"checkpoint {name}",
            expected="the state of dino_ood",
            got="none (another method, or ood.enabled=false)",
            remedy="Train with method: dino_ood.",
        )
    try:
        num_classes = len(state["scorer"].get("counts", [0]))
        selector = RareSelector(ood, state["dim"], num_classes)
        selector.load_state_dict(state)
        selector.settle()
        return selector
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:  # not what we saved
        raise UserError(
            f"checkpoint {name}, {STATE_KEY!r}",
            expected="the state of a detector, as dino_ood saves it",
            got=f"{type(error).__name__}: {error}",
            remedy="Use a checkpoint that dino_ood wrote.",
        ) from error


def _config(args: dict[str, Any]) -> DictConfig:
    """Return the run's config; the release's ``args.json`` holds it under a key of its own."""
    from solo_ood.data.digits import digits_lt

    OmegaConf.register_new_resolver("solo_ood.digits", digits_lt, replace=True)
    return OmegaConf.create(args.get("config", args))


def _samples(cfg: DictConfig) -> list[tuple[str, int]]:
    """Return (path, label) by dataset index; [] if the data are not image files any more."""
    path = Path(cfg.data.train_path)
    if (cfg.data.get("fraction") or -1) > 0:
        return []  # the host draws the subset itself; its indexes are not those of the folder
    if cfg.data.dataset not in ("custom", "imagenet", "imagenet100") or not path.is_dir():
        return []
    if cfg.data.get("no_labels"):  # the order of solo-learn's CustomDatasetWithoutLabels
        return [(str(path / name), -1) for name in os.listdir(path)]
    from torchvision.datasets import ImageFolder

    return ImageFolder(str(path)).samples


def read_curves(path: Path) -> Curves:
    """Return (steps, values) by column of Lightning's ``metrics.csv``; {} if there is none."""
    curves: Curves = {}
    if not path.is_file():
        return curves
    with path.open() as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name not in ("step", "epoch"):
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(float(row["step"]))
                    values.append(float(value))
    return curves


def _loss_lines(curves: Curves) -> list[str]:
    if "dino_loss_step" not in curves:
        return [f"{'loss':<14}no metrics.csv"]
    values = curves["dino_loss_step"][1]
    tenth = max(1, len(values) // 10)
    first, last = sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth
    return [f"{'DINO loss':<14}{first:.3f} (first tenth of the run) -> {last:.3f} (last tenth)"]


def _detector_lines(selector: RareSelector, ood: OODConfig) -> list[str]:
    count, metrics = selector.counts, selector.metrics()
    if not count["judged"]:
        return [f"{'flag rate':<14}nothing judged yet (warm-up of scorer or threshold)"]
    target = 1 - ood.threshold.percentile
    rate = metrics["flag_rate"]
    line = f"{rate:.2%} of {count['judged']:,} judged; target {target:.2%}"
    if isinstance(selector.threshold, TrackingThreshold):
        line += f", bound +-{float(selector.threshold.rate_bound):.2%}"
    lines = [
        f"{'flag rate':<14}{line}",
        f"{'detector':<14}scorer {ood.scorer.name}, threshold {ood.threshold.name} "
        f"at {float(selector.threshold.threshold):.4g}",
    ]
    if "lift" in metrics:
        lines.append(
            f"{'':<14}precision {metrics['precision']:.3f}, base rate "
            f"{count['rare'] / count['judged']:.3f}, lift {metrics['lift']:.2f} "
            f"(rare classes {selector.rare_classes})"
        )
    if count["not_finite"]:
        lines.append(f"{'':<14}{count['not_finite']} features were NaN or Inf and left out")
    return lines


def _queue_lines(selector: RareSelector, samples: list[tuple[str, int]]) -> list[str]:
    queue = selector.queue
    lines = [
        f"{'queue':<14}{len(queue)} of {queue.capacity} indexes, mean age {queue.mean_age:.0f} "
        f"steps, {selector.counts['replayed']:,} rows replayed"
    ]
    used, left = queue.concentration(), sum(queue.left.values())
    if "replays_per_sample" in used:
        lines.append(
            f"{'':<14}{int(used['distinct_replayed']):,} distinct samples, drawn "
            f"{used['replays_per_sample']:.1f} times each"
        )
    if left:
        shares = {how.replace("_", " "): n / left for how, n in queue.left.items() if n}
        held = ", ".join(f"{share:.0%} {how}" for how, share in shares.items())
        lines.append(f"{'':<14}{left:,} left it: {held}")
    if samples and len(queue):
        labels = Counter(samples[index][1] for index in queue)
        if set(labels) != {-1}:
            held = ", ".join(f"{label}: {n}" for label, n in sorted(labels.items()))
            lines.append(f"{'':<14}by class {held}")
    return lines


def _evaluation_lines(run: Path) -> list[str]:
    lines = []
    for name, label in (("knn", "k-NN, %"), ("linear", "linear, %")):
        path = run / f"{name}.json"
        text = format_groups(json.loads(path.read_text())) if path.is_file() else "not evaluated"
        lines.append(f"{label:<14}{text}")
    return lines


def _pictures(
    selector: RareSelector,
    ood: OODConfig,
    samples: list[tuple[str, int]],
    curves: Curves,
    out: Path,
) -> list[Path]:
    from solo_ood import plots

    written = []
    newest = list(selector.queue)[::-1][:72]
    if samples and newest:
        labels = [samples[index][1] for index in newest]
        sheet = plots.contact_sheet(
            [Path(samples[index][0]) for index in newest],
            [f"class {label}" if label >= 0 else "" for label in labels],
            [label in selector.rare_classes for label in labels],
            f"Newest {len(newest)} of {len(selector.queue)} queued samples; red: of a rare class",
        )
        written.append(plots.save(sheet, out / "queue.png"))
    window = selector.threshold.scores
    scores = window.rows[window.filled].tolist()
    if scores:
        histogram = plots.score_histogram(
            scores,
            float(selector.threshold.threshold),
            f"Newest {len(scores)} scores of the stream ({ood.scorer.name})",
        )
        written.append(plots.save(histogram, out / "scores.png"))
    shown = [
        name
        for name in (
            "dino_loss_step",
            "ood/flag_rate",
            "ood/lift",
            "ood/queue_fill",
            "ood/distinct_replayed",
            "ood/replays_per_sample",
            "ood/share_released",
            "val_acc1",
        )
        if name in curves
    ]
    if shown:
        references = {
            "ood/flag_rate": ("target", 1 - ood.threshold.percentile),
            "ood/lift": ("random picks", 1.0),
        }
        figure = plots.training_curves({name: curves[name] for name in shown}, references)
        written.append(plots.save(figure, out / "curves.png"))
    return written
