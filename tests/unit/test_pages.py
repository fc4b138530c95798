"""What every report has: colours that the colour-blind tell apart, named axes, its own files."""

from __future__ import annotations

from importlib.metadata import files
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from repository import ROOT

from solo_ood.benchmark import charts
from solo_ood.benchmark.measure import Scores
from solo_ood.pages import glossary, page, plots
from solo_ood.pages.parts import Column, Table, number_cell, panel

# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB.
SIGHTS = {
    "all colours": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                 [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def lab(color: str, sight: str) -> np.ndarray:
    """CIELAB (D65) of a colour as somebody with this sight has it."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(SIGHTS[sight]) @ linear, 0, 1)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    x, y, z = np.cbrt(to_xyz @ linear / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def apart(one: str, other: str, sight: str) -> float:
    return float(np.linalg.norm(lab(one, sight) - lab(other, sight)))


@pytest.mark.parametrize("sight", SIGHTS)
def test_rare_and_others_differ_whatever_colours_one_sees(sight):
    assert apart(plots.RARE, plots.COMMON, sight) > 50
    for color in (plots.RARE, plots.COMMON):
        assert apart(color, "white", sight) > 25


@pytest.mark.parametrize("sight", SIGHTS)
def test_any_two_lines_differ_in_colour_or_in_dashes(sight):
    styles = [plots.line_style(number) for number in range(12)]
    for one, other in combinations(styles, 2):
        far = apart(one["color"], other["color"], sight) > 15
        assert far or one["linestyle"] != other["linestyle"], (one, other)


def test_the_page_has_the_colours_of_the_pictures():
    style = (page.TEMPLATES / "style.css").read_text()
    assert f"--rare: {plots.RARE};" in style and f"--others: {plots.COMMON};" in style


def figures() -> dict[str, Figure]:
    rng = np.random.default_rng(0)
    rare = np.arange(60) % 5 == 0
    one = Scores("knn", 50, [np.linspace(0, 1, 11)], [rng.normal(size=60) + rare])
    plane = charts.plane({"net": rng.normal(size=(60, 8))}, "pca")
    curves = {name: ([1, 2], [3.0, 4.0]) for name in plots.CURVE_AXES}
    return {
        "scatter": charts.scatter(plane, rare, "title"),
        "histograms": charts.histograms([one] * 4, rare, (0.9, 0.8), "title"),
        "curves": charts.curves([one] * 8, rare, "title"),
        "scores": plots.score_histogram([1, 2, 3], 2.0, "title", "note"),
        "training": plots.training_curves(curves, {"ood/lift": ("random picks", 1.0)}),
    }


@pytest.mark.parametrize("name", figures())
def test_a_figure_names_its_axes_with_units_and_has_one_legend_that_covers_none(name, tmp_path):
    figure = figures()[name]
    plots.save(figure, tmp_path / "a.png")
    shown = [axis for axis in figure.axes if axis.axison]
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width and 0 <= box.y0 < box.y1
    for axis in shown:
        assert axis.get_legend() is None and not box.overlaps(axis.get_tightbbox())
        last = axis.get_subplotspec().is_last_row() or name != "training"
        names = [axis.get_ylabel(), *([axis.get_xlabel()] if last else [])]
        for text in names:
            assert "(" in text or text.startswith("share of"), text


def test_the_templates_are_in_the_package_that_was_installed():
    installed = {
        str(file): Path(file.locate()) for file in files("solo-ood") if "templates" in file.parts
    }
    sources = {str(path.relative_to(ROOT)): path for path in ROOT.glob("solo_ood/*/templates/*")}
    assert installed.keys() == sources.keys() and len(sources) == 6
    assert page.TEMPLATES.resolve() in {path.parent.resolve() for path in installed.values()}
    assert page.TEMPLATES.resolve() != ROOT / "solo_ood/pages/templates"
    for name, path in installed.items():
        assert path.read_bytes() == sources[name].read_bytes()


def test_a_heading_of_a_column_says_what_the_glossary_says():
    assert Column("Lift").about == glossary.TERMS["Lift"] and Column("Network").about == ""
    shown = page.Page("title", terms=["Lift"])
    shown.table(Table("caption", [Column("Lift", number=True)], [[number_cell("–", float("nan"))]]))
    html = shown.html()
    assert html.count(glossary.TERMS["Lift"]) == 2  # the hint and the glossary
    assert '<td data-value="NaN">–</td>' in html


def test_glossary_of_the_docs_explains_every_term_of_the_reports_in_the_same_words():
    page = " ".join((ROOT / "docs/glossary.md").read_text().split())
    for name, text in glossary.TERMS.items():
        heads = {name, name[0].upper() + name[1:], f"{name}, percentile"}
        assert any(f"- **{head}**: {text}" in page for head in heads), name


def test_points_fill_their_panel_and_rare_ones_lie_on_top():
    points = np.array([[0.0, 5.0], [2.0, 5.0], [1.0, 9.0], [1.0, 7.0]])
    placed = panel("net", points, np.array([True, False, False, True])).points
    assert [number for number, *_ in placed] == [1, 2, 0, 3]
    where = {number: (x, y) for number, x, y, _ in placed}
    assert where[0][0] < where[3][0] == where[2][0] < where[1][0]
    assert where[2][1] < where[3][1] < where[0][1] == where[1][1]  # up on the page is high
    same = panel("net", np.ones((3, 2)), np.zeros(3, bool)).points
    assert len({(x, y) for _, x, y, _ in same}) == 1 and np.isfinite(same[0][1:3]).all()
