"""The chart of an evaluation: accuracy over the number of training images of a class."""

from __future__ import annotations

import numpy as np
import pytest

from solo_ood.evaluation import chart
from solo_ood.evaluation.figures import Figure


def figure(classes, reference="held-out", weights="teacher", method="knn"):
    rows = [
        {"class": f"c{i}", "train_images": n, "accuracy": 40 + i, "low": 30 + i, "high": 45 + i}
        for i, n in enumerate(classes)
    ]
    return Figure(method, weights, {"All": 50.0}, {"k": 20}, reference, classes=rows)


def test_a_panel_for_each_reference_with_axes_in_units_and_one_legend():
    counts = [300, 100, 30, 10]
    drawn = chart.draw(
        [
            figure(counts, reference, weights, method)
            for reference in ("held-out", "train")
            for weights in ("teacher", "student")
            for method in ("knn", "linear")
        ]
    )
    assert drawn.get_supxlabel() == "training images of the class (number)"
    assert drawn.get_supylabel() == "accuracy (%)"
    assert [axis.get_title() for axis in drawn.axes] == ["reference held-out", "reference train"]
    assert all(axis.get_xscale() == "log" and len(axis.containers) == 4 for axis in drawn.axes)
    (legend,) = drawn.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [
        "k-NN, teacher, k = 20", "linear, teacher", "k-NN, student, k = 20", "linear, student"
    ]  # fmt: skip
    line = drawn.axes[0].containers[0].lines[0]
    assert line.get_xdata().tolist() == [10, 30, 100, 300]  # by count, not by name
    assert line.get_ydata().tolist() == [43, 42, 41, 40]
    looks = {(one.lines[0].get_color(), one.lines[0].get_marker(), one.lines[0].get_linestyle())
             for one in drawn.axes[0].containers}  # fmt: skip
    assert len(looks) == 4 and all(len({look[i] for look in looks}) == 4 for i in range(2))


def test_many_classes_are_means_over_similar_counts():
    counts = np.arange(1, 121)[::-1]
    (axis,) = chart.draw([figure(counts)]).axes
    (line,) = axis.lines
    assert len(line.get_xdata()) == chart.POINTS and len(axis.collections[0].get_offsets()) == 120
    assert line.get_ydata().mean() == pytest.approx(40 + 59.5)


def test_without_counts_there_is_no_chart():
    assert "no chart" in chart.why_not([figure([None, None])])
    assert chart.why_not([figure([3, None])]) == ""
