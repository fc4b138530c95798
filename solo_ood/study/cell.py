"""One cell of a study: pre-train, evaluate the teacher, count exposures, write its JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from solo_ood.errors import UserError
from solo_ood.files import atomic
from solo_ood.study import data
from solo_ood.study.plan import Cell, Study

# Of metrics.csv; each is over the run so far, so the last value counts.
LOGGED = ("flag_rate", "precision", "lift", "distinct_replayed", "replays_per_sample")


@dataclass(frozen=True)
class Place:
    """Where a study writes, and what it reads.

    Attributes:
        out: the folder of results.
        given: the user's data.
        program: ``main_pretrain.py`` of a checkout; ``None`` = the release.
        keep: whether the run's folder stays.
    """

    out: Path
    given: Path | None = None
    program: Path | None = None
    keep: bool = False

    def result(self, cell: Cell) -> Path:
        """The cell's JSON."""
        return self.out / "cells" / f"{cell.name}.json"

    def log(self, cell: Cell) -> Path:
        """What the cell said."""
        return self.out / "logs" / f"{cell.name}.log"

    def work(self, cell: Cell) -> Path:
        """The folder of its checkpoint, until its result is there."""
        return self.out / "work" / cell.name


def run_cell(study: Study, cell: Cell, place: Place) -> dict[str, Any]:
    """Make a cell and write its result; one that was stopped goes on from its newest checkpoint.

    Returns:
        the result, as its file holds it.

    Raises:
        UserError: for settings or data that do not go together.
    """
    started = time.monotonic()
    images = data.build(study.data, place.given, cell.order, place.out / "data")
    work = place.work(cell)
    overrides = _overrides(study, cell, images, work)
    run, exposures = _train(study, place, overrides, images, work)
    if not any(run.glob("*.ckpt")):  # it was killed after training, of which no step was left
        shutil.rmtree(work)
        run, exposures = _train(study, place, overrides, images, work)
    trained = time.monotonic()
    found = {
        "cell": asdict(cell),
        "settings": study.settings(cell),
        **_evaluated(run, images, work / "evaluation", study.weights),
        "logged": _logged(run),
        "classes": exposures,
        "seconds": {
            "train": round(trained - started, 1),
            "evaluate": round(time.monotonic() - trained, 1),
        },
    }
    path = place.result(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(f"{json.dumps(found, indent=1)}\n".encode(), path)
    if not place.keep:
        shutil.rmtree(work, ignore_errors=True)
    return found


def _train(
    study: Study, place: Place, overrides: list[str], images: data.PairData, work: Path
) -> tuple[Path, list[dict[str, Any]] | None]:
    """Train by the program asked for; return the run's folder, and the exposures if counted."""
    if place.program is None:
        return _pretrain(study.config, overrides, images)
    return _pretrain_by(place.program, study.config, overrides, work), None


def _overrides(study: Study, cell: Cell, images: data.PairData, work: Path) -> list[str]:
    """Return what the training program gets: the study's own first, the arm's last."""
    found = [
        f"+seed={cell.seed}", "name=study", f"checkpoint.dir='{work}'",
        f"data.train_path='{images.train}'", "data.val_path=null", "auto_resume.enabled=True",
        "++enable_progress_bar=False", "++enable_model_summary=False",
        *study.settings(cell)["overrides"],
    ]  # fmt: skip
    n = study.arms[cell.arm].exemplars
    if n:
        drawn = data.exemplars(images, n, cell.seed)
        found.append(f"method_kwargs.ood.scorer.exemplars={drawn}")
    return found


def _pretrain(
    config: str, overrides: list[str], images: data.PairData
) -> tuple[Path, list[dict[str, Any]]]:
    """Train in this process, on the release; return the run's folder and the exposures."""
    from solo_ood.host import installed
    from solo_ood.host.quiet import ignore_foreign_warnings

    ignore_foreign_warnings()
    if installed.generation() != "release":
        raise UserError(
            "--program",
            expected="main_pretrain.py of the installed checkout of solo-learn",
            got="nothing",
            remedy="Give it: --program PATH/main_pretrain.py.",
        )
    from solo_ood.study.trained_rows import TrainedRows
    from solo_ood.training.release_programs import compose_config, pretrain

    targets = images.targets
    counter = TrainedRows(len(targets))
    cfg = compose_config(config, overrides)
    run = pretrain(cfg, [counter] if cfg.method == "dino_ood" else [])
    return run, counter.by_class(targets, images.classes)


def _pretrain_by(program: Path, config: str, overrides: list[str], work: Path) -> Path:
    """Train by a checkout's own program; return the run's folder."""
    if any("class_balanced" in override for override in overrides):
        raise UserError(
            "data.class_balanced",
            expected="solo-learn 1.0.2, whose loader this package builds",
            got="a checkout",
            remedy="Leave this arm out of the study.",
        )
    command = [sys.executable, "-m", "solo_ood", program, "--config-name", config, *overrides]
    subprocess.run([*map(str, command)], check=True)
    runs = [path.parent for path in work.glob("*/*/args.json")]
    return max(runs, key=lambda run: run.stat().st_mtime)


def _evaluated(run: Path, images: data.PairData, out: Path, weights: str) -> dict[str, Any]:
    """Return the accuracies in % of k-NN and linear probe by group, and which checkpoint it is."""
    from solo_ood.embedding.options import ExtractConfig
    from solo_ood.evaluation.evaluate import evaluate
    from solo_ood.evaluation.options import HELD_OUT, EvaluateOptions

    options = EvaluateOptions(
        run=run, train=images.train, val=images.test, held_out=images.reference,
        tail=images.train, out=out, weights=(weights,), references=(HELD_OUT,),
        embedding=ExtractConfig(batch_size=256, num_workers=0, cache=out / "cache"),
    )  # fmt: skip
    figures = evaluate(options)
    about = figures[0].about
    return {
        "accuracy": {figure.method: figure.accuracy for figure in figures},
        "checkpoint": {key: about.get(key) for key in ("epoch", "steps")},
    }


def _logged(run: Path) -> dict[str, float]:
    """Return the last values of what detector and queue logged; {} without them."""
    from solo_ood.host.run_folder import find_run
    from solo_ood.runs.report import read_curves

    path = find_run(run).metrics
    curves = read_curves(path) if path else {}
    return {name: curves[f"ood/{name}"][1][-1] for name in LOGGED if f"ood/{name}" in curves}
