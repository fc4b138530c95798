"""Figures of an evaluation as text, JSON, CSV and Markdown: each with what it was measured on."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solo_ood.evaluation.data import shown

GROUPS = ("All", "Many", "Medium", "Few")
LABELS = {"knn": "k-NN", "linear": "linear"}


@dataclass(frozen=True)
class Figure:
    """The accuracies of one method with one network.

    Attributes:
        method: ``knn`` or ``linear``.
        weights: ``teacher`` or ``student``.
        accuracy: percent by group (All, Many, Medium, Few; those that there are).
        about: checkpoint, epoch, the method's own settings, and the data: ``train``, ``val`` and
            ``tail`` as ``evaluation.data.facts`` gives them.
    """

    method: str
    weights: str
    accuracy: dict[str, float]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> str:
        """Return the method's own settings as a text."""
        names = {"k": "k", "temperature": "T", "distance": "distance", "C": "C"}
        given = [(short, self.about.get(key)) for key, short in names.items()]
        return ", ".join(f"{short} = {_short(value)}" for short, value in given if value)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def terminal(figures: Sequence[Figure]) -> str:
    """Return the table, one line for each figure; at most 80 columns."""
    names = _groups(figures)
    lines = [f"{'accuracy, %':<18}" + "".join(f"{name:>8}" for name in names)]
    for one in figures:
        numbers = "".join(
            f"{one.accuracy[name]:8.1f}" if name in one.accuracy else f"{'–':>8}" for name in names
        )
        head = f"{LABELS[one.method]}, {one.weights}"
        lines.append(f"{head:<18}{numbers}   {one.settings}")
    return "\n".join(lines)


def markdown(figures: Sequence[Figure]) -> str:
    """Return the table, and below it the data and the checkpoint."""
    names = _groups(figures)
    head = ["", "Weights", *names, "Settings"]
    lines = ["Accuracy in %.", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for one in figures:
        numbers = [f"{one.accuracy[n]:.1f}" if n in one.accuracy else "–" for n in names]
        cells = [LABELS[one.method], one.weights, *numbers, one.settings]
        lines.append("| " + " | ".join(cells) + " |")
    about = figures[0].about
    lines += ["", f"- checkpoint: {about['checkpoint']}, epoch {about['epoch']}"]
    lines += [f"- {name}: {shown(about[name])}" for name in ("train", "val", "tail") if about[name]]
    return "\n".join(lines) + "\n"


def write(figures: Sequence[Figure], folder: Path, facts: dict[str, Any]) -> list[Path]:
    """Write ``evaluation.json``, ``.csv`` and ``.md``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    records = [record(one) for one in figures]
    paths = [folder / f"evaluation.{suffix}" for suffix in ("json", "csv", "md")]
    text = json.dumps({"about": facts, "figures": records}, indent=1)
    paths[0].write_text(text + "\n", encoding="utf-8")
    with paths[1].open("w", newline="", encoding="utf-8") as file:
        flat = [_flat(one) for one in records]
        writer = csv.DictWriter(
            file, fieldnames=list(dict.fromkeys(k for one in flat for k in one))
        )
        writer.writeheader()
        writer.writerows(flat)
    paths[2].write_text(markdown(figures), encoding="utf-8")
    return paths


def record(figure: Figure) -> dict[str, Any]:
    """Return the figure as JSON holds it."""
    return {
        "method": figure.method,
        "weights": figure.weights,
        **figure.accuracy,
        "about": figure.about,
    }


def figure_of(given: dict[str, Any], method: str | None = None) -> Figure:
    """Return what ``record`` wrote; ``method`` where the file is of one method alone."""
    accuracy = {name: float(given[name]) for name in GROUPS if name in given}
    about = given.get("about") or {}
    weights = given.get("weights") or about.get("weights") or "student"
    return Figure(method or given["method"], weights, accuracy, about)


def _flat(given: dict[str, Any]) -> dict[str, Any]:
    """Return a record whose data are columns of their own: ``val_path``, ``val_images``, ..."""
    flat = {key: value for key, value in given.items() if key != "about"}
    for key, value in given["about"].items():
        if isinstance(value, dict):
            flat.update({f"{key}_{name}": one for name, one in value.items()})
        else:
            flat[key] = value
    return flat


def _groups(figures: Sequence[Figure]) -> list[str]:
    return [name for name in GROUPS if any(name in one.accuracy for one in figures)]
