"""The pictures of a measurement show what they say: counts, thresholds, curves, order."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox
from matplotlib.text import Text
from PIL import Image
from scipy.spatial.distance import pdist

from solo_ood.benchmark import charts
from solo_ood.benchmark.measure import Scores
from solo_ood.pages import plots

RED = to_hex(plots.RARE)


def clusters(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, 6) features in two directions, and which are in the second: a quarter, "rare"."""
    rng = np.random.default_rng(seed)
    rare = np.arange(n) % 4 == 0
    feats = np.where(rare[:, None], [0, 9, 0, 0, 0, 0], [9, 0, 0, 0, 0, 0])
    return feats + rng.normal(size=(n, 6)), rare


def drawn(figure: Figure, tmp_path: Path) -> Figure:
    """Return the figure after it was written as a PNG, which is when most errors happen."""
    with Image.open(plots.save(figure, tmp_path / "figure.png")) as image:
        assert np.asarray(image.convert("L")).std() > 5  # not blank
    return figure


def image_files(folder: Path, n: int) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(n)]
    for number, path in enumerate(paths):
        Image.new("RGB", (30, 20), (4 * number, 40, 200)).save(path)
    return paths


def color_of(artist) -> str:
    return to_hex(artist.get_color())


@pytest.mark.parametrize("how", ["pca", "tsne"])
def test_a_projection_keeps_apart_what_is_apart_and_a_seed_fixes_it(how):
    feats, rare = clusters()
    points = charts.project(feats, how)
    assert points.shape == (40, 2) and np.isfinite(points).all()
    np.testing.assert_array_equal(charts.project(feats, how), points)
    np.testing.assert_allclose(charts.project(7 * feats, how), points, atol=1e-2)  # unit vectors
    centers = [points[mask].mean(axis=0) for mask in (rare, ~rare)]
    spread = max(points[mask].std() for mask in (rare, ~rare))
    assert np.linalg.norm(centers[0] - centers[1]) > 1.5 * spread


def test_pca_of_points_in_a_plane_keeps_their_distances():
    flat = clusters()[0][:, :2]
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    embedded = np.hstack([flat, np.zeros((40, 3))])
    np.testing.assert_allclose(pdist(charts.project(embedded, "pca")), pdist(unit), atol=1e-6)


@pytest.mark.parametrize("how", ["pca", "tsne"])
def test_five_images_are_enough_to_project(how):
    assert np.isfinite(charts.project(clusters(5)[0], how)).all()


def test_an_unknown_projection_or_one_that_is_not_installed_is_an_error(monkeypatch):
    with pytest.raises(ValueError, match="Unknown projection: .*Did you mean 'tsne'"):
        charts.project(clusters()[0], "t-sne")
    monkeypatch.setitem(sys.modules, "umap", None)  # what an import of it finds if it is not there
    with pytest.raises(ValueError, match=r"--projection umap: .*Install solo-ood\[umap\]"):
        charts.project(clusters()[0], "umap")


@pytest.mark.parametrize("how", ["pca", "tsne"])
def test_a_scatter_shows_each_network_in_a_panel_with_the_rare_marked_on_top(tmp_path, how):
    feats, rare = clusters()
    shown = charts.plane({"one": feats, "two": feats[:, ::-1]}, how)
    figure = charts.scatter(shown, rare, "title")
    assert [axis.get_title() for axis in drawn(figure, tmp_path).axes] == ["one", "two"]
    assert figure.get_suptitle() == "title"
    for axis in figure.axes:
        others, marked = axis.collections  # in the order in which they are drawn
        assert (len(others.get_offsets()), len(marked.get_offsets())) == (30, 10)
        assert to_hex(marked.get_facecolor()[0]) == RED != to_hex(others.get_facecolor()[0])
    points = charts.project(feats, how)
    np.testing.assert_allclose(figure.axes[0].collections[1].get_offsets(), points[rare])


def test_a_scatter_of_many_images_shows_the_same_few_of_them_for_every_network(monkeypatch):
    monkeypatch.setattr(charts, "MAX_POINTS", 20)
    feats, rare = clusters(400)
    figure = charts.scatter(charts.plane({"one": feats, "two": feats}, "pca"), rare, "title")
    shown = [[part.get_offsets() for part in axis.collections] for axis in figure.axes]
    assert sum(map(len, shown[0])) == 20 and 1 <= len(shown[0][1]) <= 12
    for one, two in zip(*shown):
        np.testing.assert_array_equal(one, two)
    others, marked = (np.sign(points[:, 0]) for points in shown[0])  # the two clusters
    assert len({*others}) == len({*marked}) == 1 and others[0] != marked[0]


@pytest.mark.parametrize("n", [12, 60])
def test_thumbnails_are_at_most_40_and_framed_where_rare(tmp_path, n):
    feats, rare = clusters(n)
    paths = image_files(tmp_path, n)
    shown = charts.plane({"net": feats}, "pca")
    figure = drawn(charts.scatter(shown, rare, "title", paths), tmp_path)
    boxes = figure.findobj(AnnotationBbox)
    assert len(boxes) == min(n, 40)
    points = charts.project(feats, "pca")
    for box in boxes:
        row = int(np.argmin(np.linalg.norm(points - box.xy, axis=1)))
        assert (to_hex(box.patch.get_edgecolor()) == RED) == rare[row]
        pixel = np.asarray(box.offsetbox.get_data())[0, 0]
        assert pixel[:3].tolist() == [4 * row, 40, 200]  # the image of that very point


def scores_of(n: int = 100, exemplars: int = 0) -> tuple[Scores, np.ndarray]:
    """Scores that rank the rare fifth first, but for ``exemplars``, which have none."""
    rare = np.arange(n) % 5 == 0
    values = np.arange(n) / n + rare
    values[np.flatnonzero(rare)[:exemplars]] = np.nan
    return Scores("knn", 50, [np.linspace(0, 1, 11)], [values]), rare


def test_histograms_show_every_detector_with_its_thresholds_and_all_scores(tmp_path):
    one, rare = scores_of(exemplars=3)
    shown = [one, Scores("random", None, one.held_out, one.test)]
    figure = drawn(charts.histograms([*shown, one, one], rare, (0.9, 0.5), "title"), tmp_path)
    axes = figure.axes
    assert [axis.get_title() for axis in axes[:2]] == ["knn, N = 50", "random"]
    assert [axis.axison for axis in axes] == [True] * 4 + [False] * 2
    assert [line.get_xdata()[0] for line in axes[0].lines] == pytest.approx([0.9, 0.5])
    colors = [to_rgba(plots.COMMON, 0.6), to_rgba(plots.RARE, 0.6)]
    assert [box.patches[0].get_facecolor() for box in axes[0].containers] == colors
    for box, expected in zip(axes[0].containers, (one.test[0][~rare], one.test[0][rare])):
        mean = sum(bar.get_height() * bar.get_width() * _middle(bar) for bar in box)
        assert mean == pytest.approx(np.nanmean(expected), abs=0.05)  # of a density


def _middle(bar) -> float:
    return bar.get_x() + bar.get_width() / 2


def test_curves_start_at_the_best_and_end_at_the_base_rate(tmp_path):
    one, rare = scores_of(exemplars=2)
    figure = drawn(charts.curves([one, one], rare, "title"), tmp_path)
    left, right = figure.axes
    base = 18 / 98  # of the images that have a score
    recall, precision = left.lines[0].get_data()
    assert precision[recall == 1].max() == 1 and precision.min() == pytest.approx(base)
    share, lift = right.lines[0].get_data()
    assert lift[0] == pytest.approx(1 / base) == max(lift)  # the rare come first
    assert (share[-1], lift[-1]) == (1, pytest.approx(1))
    assert lift[share <= base + 1e-9] == pytest.approx(1 / base)
    assert color_of(left.lines[0]) == color_of(right.lines[0]) != color_of(left.lines[1])
    np.testing.assert_allclose(left.lines[-1].get_ydata(), rare.mean())


def test_a_sheet_shows_the_highest_scores_first_and_the_lowest_last_and_no_exemplar(tmp_path):
    one, rare = scores_of(60, exemplars=4)
    paths = image_files(tmp_path, 60)
    figure = charts.extremes_sheet(one, paths, [f"#{row}" for row in range(60)], rare, "knn")
    texts = [text for text in drawn(figure, tmp_path).findobj(Text) if text.get_text()[:1] == "#"]
    order = [int(text.get_text()[1:]) for text in texts]
    expected = sorted((row for row in range(60) if row not in (0, 5, 10, 15)), key=_last(one))
    assert order == [*expected[:24], *expected[-24:]]
    assert [color_of(text) == RED for text in texts] == rare[order].tolist()
    assert "24 highest" in figure.get_suptitle()


def _last(one: Scores):
    return lambda row: -one.test[0][row]


def test_maps_lie_over_the_images_as_the_network_saw_them(tmp_path):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 40:] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    one = np.zeros((2, 3))
    one[1, 2] = 1
    paths, captions = [tmp_path / "a.png"] * 5, [f"#{row}" for row in range(5)]
    rare = np.array([True, False, True, False, False])
    figure = drawn(
        charts.overlay_maps([one] * 5, paths, (20, 30), captions, rare, "title"), tmp_path
    )
    images = [axis.images for axis in figure.axes]
    assert [len(layers) for layers in images] == [2] * 5 + [0] * 3  # four in a row
    below, above = images[0]
    assert below.get_array().shape == (20, 30)
    # 40 x 80 becomes 20 x 40, of which 5 columns are cut off on either side.
    assert below.get_array()[:, :13].max() < 20 and below.get_array()[:, 17:].min() > 180
    np.testing.assert_allclose(above.get_alpha(), 0.8 * one)
    left, right, bottom, top = above.get_extent()
    assert (right - left, bottom - top) == (30, 20)
    assert [axis.get_title() for axis in figure.axes[:5]] == captions
    assert [color_of(axis.title) == RED for axis in figure.axes[:5]] == rare.tolist()


def test_a_sheet_of_few_images_shows_none_twice(tmp_path):
    one, rare = scores_of(7)
    paths = image_files(tmp_path, 7)
    figure = charts.extremes_sheet(one, paths, [f"#{row}" for row in range(7)], rare, "knn")
    texts = [text.get_text() for text in figure.findobj(Text) if text.get_text()[:1] == "#"]
    assert texts == ["#5", "#0", "#6", "#3", "#2", "#1"]
    assert "3 highest" in figure.get_suptitle()
