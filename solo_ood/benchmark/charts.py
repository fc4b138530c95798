"""Pictures of a measurement: embeddings, scores, curves, and the images themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image

from solo_ood.benchmark.measure import Scores
from solo_ood.benchmark.options import PROJECTIONS
from solo_ood.data.pixels import Levels, load
from solo_ood.embedding.extract import scale_and_crop
from solo_ood.errors import UserError, unknown_name
from solo_ood.pages import plots

# Names of the two axes; of "{}" the number.
AXES = {
    "pca": "principal component {} (no unit)",
    "tsne": "t-SNE {} (no unit)",
    "umap": "UMAP {} (no unit)",
}
MAX_POINTS = 5000  # of a scatter; t-SNE of more takes minutes and shows less


def check_projection(how: str) -> None:
    """Raise ``UserError`` for an unknown projection, or one whose package is not installed."""
    if how not in PROJECTIONS:
        raise unknown_name("projection", how, PROJECTIONS)
    if how == "umap" and find_spec("umap") is None:
        raise UserError(
            "--projection umap",
            expected="the package umap-learn",
            got="none",
            remedy="Install solo-ood[umap], or use --projection tsne.",
        )


def project(feats: np.ndarray, how: str, seed: int = 0) -> np.ndarray:
    """Return (N, 2) coordinates of L2-normalised ``feats`` (N, D).

    Args:
        feats: (N, D).
        how: ``pca``; ``tsne`` (van der Maaten and Hinton, 2008); ``umap`` (McInnes et al., 2018).
        seed: of the projection.

    Raises:
        UserError: for another name, or if umap-learn is not installed.
    """
    check_projection(how)
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import normalize

    unit = normalize(feats)
    if how == "pca":
        return PCA(2, random_state=seed).fit_transform(unit)
    if how == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(unit) - 1) / 3)
        return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(unit)
    from umap import UMAP

    return UMAP(n_components=2, random_state=seed, n_jobs=1).fit_transform(unit)


@dataclass(frozen=True)
class Plane:
    """Embeddings of N images in a plane.

    Attributes:
        how: see ``project``.
        rows: (M,) of the N images, those that are shown: all, or 5000 drawn at random.
        points: (M, 2) by network.
    """

    how: str
    rows: np.ndarray
    points: Mapping[str, np.ndarray]

    @property
    def axes(self) -> tuple[str, str]:
        """The names of the two axes, with their units."""
        return AXES[self.how].format(1), AXES[self.how].format(2)


def plane(feats: Mapping[str, np.ndarray], how: str, seed: int = 0) -> Plane:
    """Return the plane of the embeddings (N, D) of each network; see ``project``."""
    rows = np.arange(len(next(iter(feats.values()))))
    if len(rows) > MAX_POINTS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_POINTS, replace=False))
    return Plane(
        how,
        rows,
        {
            name: project(rows_of_network[rows], how, seed)
            for name, rows_of_network in feats.items()
        },
    )


def scatter(
    shown: Plane,
    rare: np.ndarray,
    title: str,
    images: Sequence[Path] = (),
    seed: int = 0,
    levels: Levels | None = None,
) -> Figure:
    """Draw the embeddings of each network in a panel, rare samples as triangles and on top.

    Args:
        shown: M of N images.
        rare: (N,) bool.
        title: of the figure.
        images: N files; with them every panel shows 40 thumbnails. Empty = none.
        seed: of which thumbnails are shown.
        levels: of the images.
    """
    marked = rare[shown.rows]
    size = 7.0 if images else 5.0
    count = len(shown.points)
    figure = Figure(figsize=(size * count, size), layout="constrained")
    rng = np.random.default_rng(seed)
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axis, (name, points) in zip(panels, shown.points.items()):
        dot = max(4.0, min(24.0, 12000 / len(points)))
        axis.scatter(*points[~marked].T, s=dot, c=plots.COMMON, linewidths=0, label="others")
        style = {"c": plots.RARE, "marker": "^", "linewidths": 0, "label": "rare"}
        axis.scatter(*points[marked].T, s=dot * 1.6, **style)
        for row in rng.permutation(len(points))[: 40 if images else 0]:
            color, width = (plots.RARE, 2.5) if marked[row] else (plots.COMMON, 1)
            small = np.asarray(plots.thumbnail(images[shown.rows[row]], 64, levels))
            box = OffsetImage(small, zoom=0.55)
            frame = {"edgecolor": color, "linewidth": width}
            axis.add_artist(AnnotationBbox(box, points[row], bboxprops=frame, pad=0.1))
        axis.set(title=name, xticks=[], yticks=[], xlabel=shown.axes[0], ylabel=shown.axes[1])
    plots.legend(figure)
    figure.suptitle(title)
    return figure


def histograms(
    scores: Sequence[Scores], rare: np.ndarray, percentiles: Sequence[float], title: str
) -> Figure:
    """Draw the test scores (first repeat) of rare and other images, with the thresholds."""
    columns = min(3, len(scores))
    rows = -(-len(scores) // columns)
    figure = Figure(figsize=(4.6 * columns, 2.9 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for detector_scores, axis in zip(scores, axes):  # in this order: zip takes no axis too many
        values = detector_scores.test[0]
        known = np.isfinite(values)
        bins = plots.bin_edges(values, 40)
        groups = ((~rare, plots.COMMON, "", "others"), (rare, plots.RARE, "///", "rare"))
        for mask, color, hatch, label in groups:
            style = {"color": color, "alpha": 0.6, "hatch": hatch, "label": label}
            axis.hist(values[known & mask], bins, density=True, **style)
        for p, line in zip(percentiles, plots.LINES):
            if np.isfinite(limit := detector_scores.thresholds(p)[0]):
                style = {"color": "black", "linestyle": line, "lw": 1}
                axis.axvline(limit, label=f"threshold, p = {p}", **style)
        axis.set(title=_name(detector_scores), yticks=[], xlabel=plots.SCORE_AXIS)
        axis.set_ylabel("density (of each group)")
    for axis in axes:  # those without a detector
        axis.set_axis_off()
    plots.legend(figure, ncols=6)
    figure.suptitle(title)
    return figure


def curves(scores: Sequence[Scores], rare: np.ndarray, title: str) -> Figure:
    """Draw precision over recall, and lift over the share that is flagged (first repeats)."""
    from sklearn.metrics import precision_recall_curve

    figure = Figure(figsize=(12, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    lowest = 1.0
    for number, detector_scores in enumerate(scores):
        known = ~np.isnan(detector_scores.test[0])
        values, truth = detector_scores.test[0][known], rare[known]
        precision, recall, _ = precision_recall_curve(truth, values)
        style = {"lw": 1.4, **plots.line_style(number)}
        left.step(recall, precision, where="post", label=_name(detector_scores), **style)
        found = truth[np.argsort(-values, kind="stable")].cumsum()
        taken = np.arange(1, len(truth) + 1)
        first = max(1, len(truth) // 100)  # a lift of fewer samples is noise
        share, lift = taken / len(truth), found / taken / truth.mean()
        right.plot(share[first - 1 :], lift[first - 1 :], **style)
        lowest = min(lowest, share[first - 1])
    chance = {"color": "black", "linestyle": (0, (1, 3)), "lw": 1}
    left.axhline(rare.mean(), label=f"random: base rate {rare.mean():.3f}", **chance)
    left.set(xlabel="recall (share of the rare images)", xlim=(0, 1), ylim=(0, 1.02))
    left.set_ylabel("precision (share of the flagged images)")
    right.axhline(1, **chance)
    right.set(xlabel="share of the images that is flagged", xscale="log", xlim=(lowest, 1))
    right.set_ylabel("lift (precision / base rate; random = 1)")
    plots.legend(figure, loc="outside right center", ncols=1)
    figure.suptitle(title)
    return figure


def extremes_sheet(
    scores: Scores,
    paths: Sequence[Path],
    captions: Sequence[str],
    rare: np.ndarray,
    title: str,
    levels: Levels | None = None,
) -> Figure:
    """Draw the images with the 24 highest and the 24 lowest scores of the first repeat."""
    order = highest(scores, len(rare))
    few = min(24, len(order) // 2)
    rows = np.concatenate([order[:few], order[len(order) - few :]])
    return plots.contact_sheet(
        [paths[row] for row in rows],
        [captions[row] for row in rows],
        rare[rows].tolist(),
        f"{title}: {few} highest scores, then the {few} lowest; thick orange frame: rare",
        levels,
    )


def overlay_maps(
    shown: Sequence[np.ndarray],
    paths: Sequence[Path],
    size: tuple[int, int],
    captions: Sequence[str],
    rare: np.ndarray,
    title: str,
    levels: Levels | None = None,
) -> Figure:
    """Draw where in each image a detector sees what matters, from clear (0) to orange (1).

    Args:
        shown: a map (h, w) in [0, 1] of each image.
        paths: the images.
        size: H and W (pixels) to which they were scaled and cut.
        captions: of the images.
        rare: (N,) bool; the captions of these are orange and bold.
        title: of the figure.
        levels: of the images.
    """
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    width = 3.2
    height = width * size[0] / size[1] + 0.3
    figure = Figure(figsize=(width * columns, height * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, map_, path, caption, is_rare in zip(axes, shown, paths, captions, rare):
        image = load(path, levels).convert("L")
        axis.imshow(scale_and_crop(image, size, Image.Resampling.BICUBIC), cmap="gray")
        extent = (-0.5, size[1] - 0.5, size[0] - 0.5, -0.5)
        tint = np.broadcast_to(to_rgb(plots.RARE), (*map_.shape, 3))
        axis.imshow(tint, extent=extent, alpha=0.8 * map_)
        color, weight = (plots.RARE, "bold") if is_rare else ("black", "normal")
        axis.set_title(caption, fontsize=8, color=color, fontweight=weight)
    figure.suptitle(title)
    return figure


def highest(scores: Scores, count: int) -> np.ndarray:
    """Return the rows of the highest scores of the first repeat, the highest first."""
    known = np.flatnonzero(~np.isnan(scores.test[0]))  # exemplars have no score
    return known[np.argsort(-scores.test[0][known], kind="stable")][:count]


def _name(scores: Scores) -> str:
    return scores.detector if scores.n_fit is None else f"{scores.detector}, N = {scores.n_fit}"
