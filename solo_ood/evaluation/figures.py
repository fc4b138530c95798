"""Figures of an evaluation and their file: each with what it was measured on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solo_ood.evaluation.options import HELD_OUT, REFERENCES

GROUPS = ("All", "Many", "Medium", "Few")
COLUMNS = (*GROUPS, "Std")  # in percent, and points
DATA = ("train", "val", "held_out", "tail")
LABELS = {"knn": "k-NN", "linear": "linear"}
FILE = "evaluation.json"


@dataclass(frozen=True)
class Figure:
    """The accuracies of one method with one network and one reference.

    Attributes:
        method: ``knn`` or ``linear``.
        weights: ``teacher`` or ``student``.
        accuracy: percent by group (All, Many, Medium, Few; those that there are), and Std (points).
        about: checkpoint, epoch, the method's own settings, what the reference is, and the data,
            ``DATA``, as ``evaluation.data.facts`` gives them.
        reference: a name of ``options.REFERENCES``.
        auroc: of the Few classes against the others, in [0, 1]; ``None`` = not known.
        intervals: the 95 % interval by group, of Std, and of AUROC.
        classes: of each class its name, training images, validation images, accuracy in percent
            and the ends of its interval.
    """

    method: str
    weights: str
    accuracy: dict[str, float]
    about: dict[str, Any] = field(default_factory=dict)
    reference: str = "train"
    auroc: float | None = None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    classes: Sequence[dict[str, Any]] = ()

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
        if self.reference == HELD_OUT:  # for which no training images are needed
            data = data[1:]
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
        return json.dumps([self.method, self.weights, self.reference, given, self.measured_on])


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"{_short(value[0])}–{_short(value[-1])}"
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def main_reference(figures: Sequence[Figure]) -> str:
    """Return the reference whose figures are to be looked at first."""
    there = {figure.reference for figure in figures}
    return next((name for name in REFERENCES if name in there), "train")


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


def record(figure: Figure) -> dict[str, Any]:
    """Return the figure as JSON holds it."""
    return {
        "method": figure.method,
        "weights": figure.weights,
        "reference": figure.reference,
        **figure.accuracy,
        **({} if figure.auroc is None else {"AUROC": figure.auroc}),
        "intervals": {name: list(ends) for name, ends in figure.intervals.items()},
        "about": figure.about,
        "classes": list(figure.classes),
    }


def figure_of(given: dict[str, Any], method: str | None = None) -> Figure:
    """Return what ``record`` wrote; ``method`` where the file is of one method alone."""
    about = dict(given.get("about") or {})
    intervals = {
        name: (float(low), float(high))
        for name, (low, high) in (given.get("intervals") or {}).items()
    }
    return Figure(
        method or given["method"],
        given.get("weights") or about.get("weights") or "student",
        {name: float(given[name]) for name in COLUMNS if name in given},
        about,
        given.get("reference") or "train",
        float(given["AUROC"]) if "AUROC" in given else None,
        intervals,
        [dict(row) for row in given.get("classes") or ()],
    )
