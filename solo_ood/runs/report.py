"""Summary and pictures of a finished or running ``dino_ood`` run, from its files alone."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from solo_ood.data.image_folder import image_folder
from solo_ood.errors import UserError
from solo_ood.evaluation import chart
from solo_ood.evaluation.figures import Figure
from solo_ood.evaluation.of_run import evaluation_lines, figures_table, shown_figures
from solo_ood.files.checkpoint import load
from solo_ood.files.output import check_writable, is_writable
from solo_ood.host.run_folder import RunFiles, find_run
from solo_ood.runs.summary import Stream, detector_lines, wrapped
from solo_ood.selection.selector import STATE_KEY, STATE_VERSION, RareSelector
from solo_ood.settings.block import flag_rate
from solo_ood.settings.schema import OODConfig, parse

Curves = dict[str, tuple[list[float], list[float]]]


def report(run: Path, out: Path | None = None, metrics: Path | None = None) -> str:
    """Write the pictures of a run and return a summary for the terminal.

    Args:
        run: folder with a .ckpt and its ``args.json``, or the .ckpt.
        out: folder for ``queue.png``, ``scores.png``, ``curves.png``, ``summary.txt`` and
            ``report.html``, which shows all of it; default ``run/report``.
        metrics: Lightning's ``metrics.csv``; default the run's own. Without it there are no losses
            and no curves.

    Raises:
        UserError: if there is no checkpoint, one without the state of an enabled detector, or an
            ``out`` that cannot be written.
    """
    if out is not None:
        check_writable(out, "--out", "summary.txt")
    files = find_run(run)
    checkpoint = load(files.checkpoint)
    ood = parse(files.setting("method_kwargs.ood"))
    ours = checkpoint.get(STATE_KEY)
    detects = files.setting("method") == "dino_ood" and ood.enabled
    has_state = isinstance(ours, dict) and "selector" in ours  # also of a method of the user's own
    selector = _selector(ours, ood, files.checkpoint.name) if detects or has_state else None

    metrics = metrics or files.metrics
    curves = read_curves(metrics)
    out = out or files.folder / "report"
    stream = read_stream(files)
    facts = files.checkpoint_facts()
    lines = [f"run {run}: epoch {facts['epoch'] or 'unknown'}, {facts['steps']} steps"]
    lines += _loss_lines(curves, metrics, files)
    if selector is None:
        why = "another method" if ood.enabled else "ood.enabled=false"
        lines.append(f"{'detector':<14}none ({why}): nothing was scored, queued or replayed")
    else:
        lines += detector_lines(selector, ood, stream)
    lines += evaluation_lines(files)
    if is_writable(out):
        out.mkdir(parents=True, exist_ok=True)
        pictures = [] if selector is None else _detector_pictures(selector, ood, stream, out)
        pictures += _curve_pictures(curves, None if selector is None else ood, out)
        evaluated = shown_figures(files)
        pictures += _evaluation_pictures(evaluated, out)
        from solo_ood.runs import run_page

        figures = figures_table(evaluated) if evaluated else None
        page = run_page.write(f"Run {run.name}", lines, selector, stream, pictures, out, figures)
        pictures.append(str(page))
    else:  # a run of another user, or a read-only file system
        pictures = [f"none: {out} cannot be written; name another folder: --out DIR"]
    lines += [f"{'pictures':<14}{path}" for path in pictures]
    text = "\n".join(wrapped(line) for line in lines)
    if is_writable(out):
        with suppress(OSError):  # its file alone is protected; the text is shown anyway
            (out / "summary.txt").write_text(text + "\n", encoding="utf-8")
    return text


def _selector(ours: Any, ood: OODConfig, name: str) -> RareSelector:
    """Return the detector that was saved as ``ours`` in the checkpoint ``name``."""
    state = ours.get("selector") if isinstance(ours, dict) else None
    if state is None:
        raise UserError(
            f"checkpoint {name}",
            expected="the state of dino_ood",
            got="none, although its args.json has method: dino_ood",
            remedy="Give a checkpoint of the run that args.json is of.",
        )
    version = ours.get("version", 1)
    if version != STATE_VERSION:
        raise UserError(
            f"checkpoint {name}, {STATE_KEY!r}",
            expected=f"layout version {STATE_VERSION}",
            got=version,
            remedy="Use the version of this package that wrote it.",
        )
    try:
        num_classes = len(state["scorer"].get("counts", [0]))
        selector = RareSelector(ood, state["settings"]["feature size"], num_classes)
        selector.load_state_dict(state)
        selector.judge_pending()
        return selector
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:  # not what we saved
        raise UserError(
            f"checkpoint {name}, {STATE_KEY!r}",
            expected="the state of a detector, as dino_ood saves it",
            got=f"{type(error).__name__}: {error}",
            remedy="Use a checkpoint that dino_ood wrote.",
        ) from error


def read_stream(run: RunFiles) -> Stream:
    """Return the images of the run's training folder, in the host's order."""
    path = run.image_folder("train_path")
    if (run.setting("data.fraction") or -1) > 0:
        return Stream()  # the host draws the subset itself; its indexes are not those of the folder
    if path is None or not path.is_dir():
        return Stream()
    if run.setting("data.no_labels"):  # the order of solo-learn's CustomDatasetWithoutLabels
        names = os.listdir(path)
        return Stream([path / name for name in names], [-1] * len(names))
    try:
        folder = image_folder(path)
    except UserError:  # emptied since
        return Stream()
    return Stream([Path(file) for file, _ in folder.samples], folder.targets, folder.classes)


def read_curves(path: Path | None) -> Curves:
    """Return (steps, values) by column of Lightning's ``metrics.csv``; {} if there is none."""
    curves: Curves = {}
    if path is None or not path.is_file():
        return curves
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name not in ("step", "epoch"):
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(float(row["step"]))
                    values.append(float(value))
    return curves


def _loss_lines(curves: Curves, metrics: Path | None, run: RunFiles) -> list[str]:
    if "dino_loss_step" not in curves:
        got = "no metrics.csv; name it: --metrics FILE" if metrics is None else f"none in {metrics}"
        return [f"{'loss':<14}{got}"]
    apart = metrics is not None and metrics.parent != run.folder
    values = curves["dino_loss_step"][1]
    tenth = max(1, len(values) // 10)
    first, last = sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth
    lines = [f"{'DINO loss':<14}{first:.3f} (first tenth of the run) -> {last:.3f} (last tenth)"]
    return lines + ([f"{'':<14}from {metrics}"] if apart else [])


def _saved(draw: Callable[..., Any], *arguments: Any, path: Path) -> str:
    """Draw and save; return the path, or why it failed, which must not end the summary."""
    from solo_ood.pages import plots

    return plots.save_or_explain(partial(draw, *arguments), path) or str(path)


def _detector_pictures(
    selector: RareSelector, ood: OODConfig, stream: Stream, out: Path
) -> list[str]:
    """Draw what is queued, and the scores."""
    from solo_ood.pages import plots
    from solo_ood.runs.run_page import newest_queued

    written = []
    newest = newest_queued(selector, stream, 72)
    if newest:
        labels = [stream.labels[row] for row in newest]
        sheet = (
            [stream.paths[row] for row in newest],
            [stream.name(label) if label >= 0 else "" for label in labels],
            [label in selector.rare_classes for label in labels],
            f"Newest {len(newest)} of {len(selector.queue)} queued samples; bold: rare class",
        )
        written.append(_saved(plots.contact_sheet, *sheet, path=out / "queue.png"))
    scores = selector.threshold.block.tolist()
    if scores:
        histogram = (
            scores,
            selector.threshold.threshold,
            f"The last {len(scores):,} scores that were judged together ({ood.scorer.name})",
            _flag_rate_note(selector),
        )
        written.append(_saved(plots.score_histogram, *histogram, path=out / "scores.png"))
    return written


def _flag_rate_note(selector: RareSelector) -> str:
    """Return how the share above the threshold in ``scores.png`` goes with the flag rate."""
    judged, rate = selector.counts["judged"], selector.metrics()["flag_rate"]
    return f"over the run {rate:.2%} of {judged:,} were flagged, each by the threshold of its time"


def _evaluation_pictures(figures: list[Figure], out: Path) -> list[str]:
    """Draw accuracy over class count, of the newest checkpoint and data that were evaluated."""
    newest = [figure for figure in figures if figure.measured_on == figures[0].measured_on]
    if not newest or chart.why_not(newest):
        return []
    return [_saved(chart.draw, newest, path=out / "evaluation.png")]


def _curve_pictures(curves: Curves, ood: OODConfig | None, out: Path) -> list[str]:
    """Draw how training went; ``ood`` is that of an enabled detector."""
    from solo_ood.pages import plots

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
    if not shown:
        return []
    references = {"ood/lift": ("random picks", 1.0)}
    if ood is not None:
        references["ood/flag_rate"] = (
            "target",
            float(flag_rate(ood.threshold.percentile, ood.threshold.upper_percentile)),
        )
    drawn = {name: curves[name] for name in shown}
    return [_saved(plots.training_curves, drawn, references, path=out / "curves.png")]
