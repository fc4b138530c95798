"""The chart of an evaluation: accuracy over the number of training images of a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from solo_ood.evaluation.figures import LABELS, Figure
from solo_ood.pages.plots import COLORS, LINES, legend

POINTS = 12  # of a line; with more classes a point is the mean of several
_MARKERS = "os^Dv<>P"


def why_not(figures: Sequence[Figure]) -> str:
    """Return why there is nothing to draw; "" if there is."""
    if any(row["train_images"] for figure in figures for row in figure.classes):
        return ""
    return "no chart of accuracy over class count: no training folder says the counts"


def draw(figures: Sequence[Figure]) -> Drawing:
    """Draw a panel for each reference, and in it a line for each method and network.

    Up to 12 classes are a point each, with its 95 % interval; more are joined to means over classes
    of similar counts, with the classes as dots behind them.
    """
    references = list(dict.fromkeys(figure.reference for figure in figures))
    kinds = list(dict.fromkeys(map(_label, figures)))
    columns = min(3, len(references))
    rows = -(-len(references) // columns)
    drawing = Drawing(figsize=(0.6 + 3.2 * columns, 0.7 + 2.7 * rows), layout="constrained")
    axes = drawing.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(references) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, references):
        for figure in figures:
            if figure.reference == name:
                _line(axis, figure, kinds.index(_label(figure)))
        axis.set(title=f"reference {name}", xscale="log", ylim=(-3, 103))
        axis.grid(alpha=0.3)
    drawing.supxlabel("training images of the class (number)", fontsize=10)
    drawing.supylabel("accuracy (%)", fontsize=10)
    legend(drawing)
    return drawing


def _label(figure: Figure) -> str:
    settings = f", {figure.settings}" if figure.method == "knn" else ""  # C is chosen anew
    return f"{LABELS[figure.method]}, {figure.weights}{settings}"


def _line(axis: Axes, figure: Figure, number: int) -> None:
    known = sorted(
        (row for row in figure.classes if row["train_images"]), key=lambda r: r["train_images"]
    )
    if not known:
        return
    values = np.array([[r["train_images"], r["accuracy"], r["low"], r["high"]] for r in known])
    style: dict[str, Any] = {
        "color": COLORS[number % len(COLORS)],
        "marker": _MARKERS[number % len(_MARKERS)],
    }
    line: dict[str, Any] = {
        "linestyle": LINES[number % len(LINES)],
        "markersize": 4,
        "linewidth": 1.2,
    }
    if len(values) <= POINTS:
        x, y, low, high = values.T
        errors = [np.maximum(0, y - low), np.maximum(0, high - y)]
        axis.errorbar(
            x, y, errors, label=_label(figure), capsize=2, elinewidth=0.7, **style, **line
        )
        return
    axis.scatter(values[:, 0], values[:, 1], s=4, alpha=0.3, linewidths=0, **style)
    parts = np.array_split(values, POINTS)
    x = [np.exp(np.log(part[:, 0]).mean()) for part in parts]
    y = [part[:, 1].mean() for part in parts]
    axis.plot(x, y, label=_label(figure), **style, **line)
