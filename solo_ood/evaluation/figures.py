"""Figures of an evaluation as text, JSON, CSV and Markdown: each with what it was measured on."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solo_ood.evaluation.data import describe_data
from solo_ood.pages.markdown import table

GROUPS = ("All", "Many", "Medium", "Few")
DATA = ("train", "val", "tail")
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

    @property
    def has_data(self) -> bool:
        """Whether it names its images."""
        data = [self.about.get(name) for name in ("train", "val")]
        whole = {"path", "images", "classes"}
        return all(isinstance(facts, dict) and whole <= set(facts) for facts in data)

    @property
    def measured_on(self) -> dict[str, Any]:
        """Return which network and data it is of, without how much is in them now."""
        data = {name: (self.about.get(name) or {}).get("path") for name in DATA}
        return {**data, **{key: self.about.get(key) for key in ("checkpoint", "image_size")}}

    @property
    def key(self) -> str:
        """Return what identifies the measurement; a probe's C, which is chosen, does not."""
        given = [self.about.get(key) for key in ("k", "temperature", "distance")]
        return json.dumps([self.method, self.weights, given, self.measured_on])


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def terminal(figures: Sequence[Figure]) -> str:
    """Return the table, one line for each figure; at most 80 columns."""
    names = _groups(figures)
    lines = [f"{'accuracy, %':<18}" + "".join(f"{name:>8}" for name in names)]
    for figure in figures:
        numbers = "".join(
            f"{figure.accuracy[name]:8.1f}" if name in figure.accuracy else f"{'–':>8}"
            for name in names
        )
        head = f"{LABELS[figure.method]}, {figure.weights}"
        lines.append(f"{head:<18}{numbers}   {figure.settings}")
    return "\n".join(lines)


def markdown(figures: Sequence[Figure]) -> str:
    """Return a table for each checkpoint and data, and below it what these are."""
    tables: dict[str, list[Figure]] = {}
    for figure in figures:
        tables.setdefault(json.dumps(figure.measured_on), []).append(figure)
    return "\n".join(["Accuracy in %.\n", *map(_table, tables.values())])


def _table(figures: Sequence[Figure]) -> str:
    names = _groups(figures)
    head = ["", "Weights", *names, "Settings"]
    rows = []
    for figure in figures:
        numbers = [f"{figure.accuracy[n]:.1f}" if n in figure.accuracy else "–" for n in names]
        rows.append([LABELS[figure.method], figure.weights, *numbers, figure.settings])
    lines = [table(head, rows)]
    about = figures[0].about
    lines += ["", f"- checkpoint: {about.get('checkpoint')}, epoch {about.get('epoch')}"]
    lines += [f"- {name}: {describe_data(about[name])}" for name in DATA if about.get(name)]
    if about.get("notes"):
        lines.append(f"- note: {about['notes']}")
    return "\n".join(lines) + "\n"


def saved(path: Path, method: str | None = None) -> list[Figure]:
    """Return the figures in a file, ``[]`` if it is missing or damaged.

    Args:
        path: an ``evaluation.json``.
        method: of the file, where it is of one method alone.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        given = content["figures"] if method is None else [content]
        found = [figure_of(saved_record, method) for saved_record in given]
        return [figure for figure in found if figure.method in LABELS and "All" in figure.accuracy]
    except (AttributeError, LookupError, OSError, TypeError, ValueError):
        return []


FILES = ("evaluation.json", "evaluation.csv", "evaluation.md")


def write(figures: Sequence[Figure], folder: Path, facts: dict[str, Any]) -> list[Path]:
    """Write ``evaluation.json``, ``.csv`` and ``.md``; return their paths.

    What they hold of another method, setting, network, checkpoint or data stays, after the new.
    """
    folder.mkdir(parents=True, exist_ok=True)
    new = {figure.key for figure in figures}
    old = [
        figure
        for figure in saved(folder / "evaluation.json")
        if figure.has_data and figure.key not in new
    ]
    figures = [*figures, *old]
    records = [record(figure) for figure in figures]
    paths = [folder / name for name in FILES]
    text = json.dumps({"about": facts, "figures": records}, indent=1)
    paths[0].write_text(text + "\n", encoding="utf-8")
    with paths[1].open("w", newline="", encoding="utf-8") as file:
        flat = [_flat(row) for row in records]
        writer = csv.DictWriter(
            file, fieldnames=list(dict.fromkeys(k for row in flat for k in row))
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
    about = dict(given.get("about") or {})
    weights = given.get("weights") or about.get("weights") or "student"
    return Figure(method or given["method"], weights, accuracy, about)


def _flat(given: dict[str, Any]) -> dict[str, Any]:
    """Return a record whose data are columns of their own: ``val_path``, ``val_images``, ..."""
    flat = {key: value for key, value in given.items() if key != "about"}
    for key, value in given["about"].items():
        if isinstance(value, dict):
            flat.update({f"{key}_{name}": part for name, part in value.items()})
        else:
            flat[key] = value
    return flat


def _groups(figures: Sequence[Figure]) -> list[str]:
    return [name for name in GROUPS if any(name in figure.accuracy for figure in figures)]
