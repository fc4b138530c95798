"""Try many detectors of rare images on several data sets; print the results as Markdown.

Unsupervised detectors see the stream only, exemplar detectors ten rare images as well. Embeddings
and results stay in ``--out``: a second call goes on where the first one stopped. See
``docs/detectors.md`` for the commands. **Higher score = rarer**, for every detector.
"""

from __future__ import annotations

import json
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import linalg, sparse, stats
from scipy.sparse.linalg import eigsh
from sklearn.cluster import HDBSCAN, AgglomerativeClustering, KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import FastICA
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold
from sklearn.preprocessing import normalize
from sklearn.svm import SVC, LinearSVC, OneClassSVM

from solo_ood.data.digits import digits_lt
from solo_ood.data.images import Split, long_tailed, read_splits
from solo_ood.data.rare import POSTER_BASE_RATE
from solo_ood.data.tail import rare_classes
from solo_ood.detection.detectors import DETECTORS
from solo_ood.detection.feats import Feats, Rows
from solo_ood.embedding.extract import ExtractConfig, embed
from solo_ood.embedding.networks import make_embedder
from solo_ood.evaluation.ranking import ranking_metrics, top_lift
from solo_ood.scorers import ExemplarScorer, KNNScorer, MahalanobisScorer

ORDERS = (0, 1, 2)  # permutations of the classes
TUNED = ("car", "fence", "pole", "sidewalk", "sky", "vegetation", "car+fence", "pole+sidewalk")
FINAL = ("person", "bicycle", "person+bicycle", "sign")  # never used to choose anything
PHASES = ("dev", "final", "final, clips held out")
N_EXEMPLARS, DRAWS = 10, 20


class Stream:
    """The features to fit on and those to score, and what several detectors derive from them.

    Attributes:
        fit, test: (N, D) and (M, D) float32, L2-normalised.
        patches: of both, or ``None``.
    """

    def __init__(self, fit: Feats, test: Feats, seed: int = 0) -> None:
        self.feats = (fit, test)
        self.fit, self.test = normalize(fit.pooled), normalize(test.pooled)
        self.seed, self.n = seed, len(fit)
        self.made: dict[Any, Any] = {}

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return ``make()``, computed at the first call with ``key``."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    @cached_property
    def near(self) -> tuple[np.ndarray, np.ndarray]:
        """Cosine distances (M, N) of the scored to the fit rows, ascending, and their indexes."""
        return _neighbours(self.test, self.fit, self.n)

    @cached_property
    def own(self) -> tuple[np.ndarray, np.ndarray]:
        """The same among the fit rows, without the row itself: (N, 5 % of N)."""
        distances, rows = _neighbours(self.fit, self.fit, self.n // 20 + 10)
        return distances[:, 1:], rows[:, 1:]

    @cached_property
    def pca(self) -> tuple[np.ndarray, np.ndarray]:
        """Axes (D, D), the largest first, and variances (D,) of the fit rows."""
        variances, axes = np.linalg.eigh(np.cov(self.fit.T).astype(np.float64))
        return axes[:, ::-1], np.maximum(variances[::-1], 1e-9 * variances.sum())

    def projected(self, m: int | None, power: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Return fit (N, m) and scored rows (M, m) on m axes, scaled by variance^-power."""
        axes, variances = self.pca
        scaled = axes[:, :m] * variances[:m] ** -power
        centre = self.fit.mean(axis=0)
        return (self.fit - centre) @ scaled, (self.test - centre) @ scaled

    def some(self, count: int) -> np.ndarray:
        """Return at most ``count`` fit rows, drawn: their order may be that of the classes."""
        return self.fit[np.random.default_rng(self.seed).permutation(self.n)[:count]]

    def kmeans(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return centroids (K, D), cluster sizes (K,) and distances (M, K) of the scored rows."""

        def make() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            clusters = min(k, self.n // 5)
            model = KMeans(clusters, n_init=1, max_iter=30, random_state=self.seed).fit(self.fit)
            sizes = np.bincount(model.labels_, minlength=clusters)
            return model.cluster_centers_, sizes, model.transform(self.test)

        return self.once(("kmeans", k), make)


Unsupervised = Callable[[Stream], np.ndarray]
Supervised = Callable[[Stream, np.ndarray], np.ndarray]  # the second: exemplars (E, D)


def _neighbours(rows: np.ndarray, reference: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    chunks = torch.from_numpy(rows).split(512)
    columns = torch.from_numpy(reference).T
    found = [(chunk @ columns).topk(min(k, len(reference)), dim=1) for chunk in chunks]
    distances = 1 - torch.cat([one.values for one in found])
    return distances.clamp(min=1e-7).numpy(), torch.cat([one.indices for one in found]).numpy()


def _rank(x: Stream, k: float) -> int:
    """Return a number of neighbours; below 1 it is a share of N."""
    return max(2, round(k * x.n)) if k < 1 else int(k)


def knn(k: float, x: Stream) -> np.ndarray:
    return x.near[0][:, _rank(x, k) - 1]


def _ranks(values: np.ndarray) -> np.ndarray:
    return stats.rankdata(values) / len(values)


def product(name: str, x: Stream) -> np.ndarray:
    """A detector of ``solo-ood detect``."""
    return DETECTORS[name].fit(x.feats[0], x.seed)(x.feats[1], None)


def knn_stream(n_reference: int, x: Stream) -> np.ndarray:
    """The training method's scorer, which remembers the newest N samples."""
    fit, test = (torch.from_numpy(one) for one in (x.fit, x.test))
    scorer = KNNScorer(fit.shape[1], n_reference, min_samples=2)
    return scorer.fit(fit[torch.randperm(len(fit))]).ood_score(test).numpy()


def mahalanobis(shrinkage: float, x: Stream) -> np.ndarray:
    fit, test = (torch.from_numpy(one) for one in (x.fit, x.test))
    scorer = MahalanobisScorer(fit.shape[1], shrinkage=shrinkage, min_samples=2)
    return scorer.fit(fit).ood_score(test).numpy()


def relative_knn(k: float, power: float, x: Stream) -> np.ndarray:
    """Distance to the k-th neighbour, relative to the mean distance to the stream^power."""
    return np.log(knn(k, x)) - power * np.log(1 - x.test @ x.fit.mean(axis=0))


def density_ratio(k: float, x: Stream) -> np.ndarray:
    """LOF's idea in its simplest form: own k-th distance over that of the neighbours."""
    rank = _rank(x, k)
    return knn(k, x) / x.own[0][:, rank - 1][x.near[1][:, :rank]].mean(axis=1)


def density_jump(k: int, factor: int, x: Stream) -> np.ndarray:
    """High in a dense group of k to factor * k samples: the distances jump after its last one."""
    return np.log(knn(min(k * factor, x.n), x) / knn(k, x))


def in_degree(k: float, x: Stream) -> np.ndarray:
    """Minus the number of fit rows that would have the sample among their k nearest."""
    radius = x.own[0][:, _rank(x, k) - 1]
    return -((1 - x.test @ x.fit.T) < radius).sum(axis=1).astype(float)


def pca_residual(share: float, x: Stream) -> np.ndarray:
    """Squared norm outside the axes that hold ``share`` of the variance."""
    m = int(np.searchsorted(np.cumsum(x.pca[1]) / x.pca[1].sum(), share)) + 1
    centred = x.test - x.fit.mean(axis=0)
    return (centred**2).sum(axis=1) - (x.projected(m)[1] ** 2).sum(axis=1)


def pca_knn(first: int, last: int | None, power: float, x: Stream) -> np.ndarray:
    """k-NN (1 %) on the axes ``first`` to ``last``; power 0.5 whitens them."""
    fit, test = (normalize(one[:, first:]).astype(np.float32) for one in x.projected(last, power))
    return _neighbours(test, fit, max(2, x.n // 100))[0][:, -1]


def pca_mahalanobis(m: int, x: Stream) -> np.ndarray:
    return (x.projected(m, 0.5)[1] ** 2).sum(axis=1)


def ica_peak(m: int, x: Stream) -> np.ndarray:
    """Largest heavy-tailed component: a small far cluster makes a direction of high kurtosis."""
    fit, test = x.projected(min(m, x.fit.shape[1] - 14), 0.5)
    ica = FastICA(whiten=False, fun="cube", max_iter=60, tol=1e-3, random_state=x.seed).fit(fit)
    sources = ica.transform(fit)
    signs = np.sign((sources**3).mean(axis=0)) / sources.std(axis=0)
    return (ica.transform(test) * signs).max(axis=1)


def tail_probability(x: Stream) -> np.ndarray:
    """Sum over features of -log of the empirical right tail (ECOD, arXiv:2201.00382)."""
    fit, test = np.sort(x.feats[0].pooled, axis=0), x.feats[1].pooled
    below = [np.searchsorted(fit[:, d], test[:, d]) for d in range(fit.shape[1])]
    return -np.log1p(-np.stack(below, axis=1) / (x.n + 1)).sum(axis=1)


def cluster_frequency(k: int, temperature: float, x: Stream) -> np.ndarray:
    """Minus the log of the size of the own cluster; temperature > 0: of all, weighted softly."""
    _, sizes, distances = x.kmeans(k)
    if not temperature:
        return -np.log(sizes[distances.argmin(axis=1)])
    logits = -(distances**2) / temperature
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return -np.log(weights @ sizes / weights.sum(axis=1))


def cluster_entropy(k: int, x: Stream) -> np.ndarray:
    distances = x.kmeans(k)[2]
    logits = -5 * distances**2 / (distances**2).std(axis=1, keepdims=True)
    return stats.entropy(np.exp(logits - logits.max(axis=1, keepdims=True)), axis=1)


def merged_clusters(k: int, groups: int, x: Stream) -> np.ndarray:
    """Small k-means clusters joined by average linkage; minus the log of the joint size."""
    centroids, sizes, distances = x.kmeans(k)
    tree = AgglomerativeClustering(groups, metric="cosine", linkage="average")
    labels = tree.fit_predict(centroids)
    return -np.log(np.bincount(labels, sizes)[labels[distances.argmin(axis=1)]])


def small_density_clusters(x: Stream) -> np.ndarray:
    """Minus the log size of the HDBSCAN clusters of the 5 nearest; noise counts as the largest."""
    model = HDBSCAN(min_cluster_size=max(5, x.n // 500), copy=True)
    labels = model.fit_predict(x.projected(20)[0]) + 1
    sizes = np.bincount(labels)
    sizes[0] = sizes.max()
    return -np.log(sizes[labels[x.near[1][:, :5]]]).mean(axis=1)


def _graph(x: Stream) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues and degree-scaled eigenvectors of the 10-NN graph's random walk."""
    distances, rows = x.own[0][:, :10], x.own[1][:, :10]
    scale = distances[:, -1]
    weights = np.exp(-(distances**2) / (scale[:, None] * scale[rows]))
    shape = (x.n, x.n)
    graph = sparse.csr_matrix(
        (weights.ravel(), rows.ravel(), np.arange(0, x.n * 10 + 1, 10)), shape
    )
    graph = graph.maximum(graph.T)
    root = np.sqrt(np.asarray(graph.sum(axis=1)).ravel())
    walk = sparse.diags(1 / root) @ graph @ sparse.diags(1 / root)
    values, vectors = eigsh(walk, 100, which="LA", v0=np.ones(x.n))
    return values[::-1], vectors[:, ::-1] / root[:, None]


def heat(m: int, t: int, x: Stream) -> np.ndarray:
    """Chance that a random walk returns within t steps: 1 / size of a separate small group."""
    values, vectors = x.once("graph", lambda: _graph(x))
    back = vectors[:, :m] ** 2 @ np.clip(values[:m], 0, 1) ** t
    return np.median(np.log(back[x.near[1][:, :10]]), axis=1)


def kernel_variance(width: float, x: Stream) -> np.ndarray:
    """Posterior variance of a Gaussian process on 1024 rows: between k-NN and Mahalanobis."""
    fit = x.some(1024).astype(np.float64)
    similar = fit @ fit.T
    scale = width * (1 - similar).mean()
    factor = linalg.cholesky(np.exp((similar - 1) / scale) + 0.3 * np.eye(len(fit)), lower=True)
    cross = np.exp((fit @ x.test.T.astype(np.float64) - 1) / scale)
    return 1 - (linalg.solve_triangular(factor, cross, lower=True) ** 2).sum(axis=0)


def one_class_svm(x: Stream) -> np.ndarray:
    return -OneClassSVM(gamma=4.0, nu=0.1).fit(x.some(2500)).score_samples(x.test)


def gaussian_mixture(k: int, m: int, x: Stream) -> np.ndarray:
    fit, test = x.projected(m)
    model = GaussianMixture(k, covariance_type="diag", reg_covar=1e-5, random_state=x.seed)
    return -model.fit(fit).score_samples(test)


def combined(parts: list[Unsupervised], x: Stream) -> np.ndarray:
    return np.sum([_ranks(part(x)) for part in parts], axis=0)


_RELATIVE, _RESIDUAL = partial(relative_knn, 0.02, 0.5), partial(pca_residual, 0.6)
_FOREST, _MAHALANOBIS = partial(product, "isolation-forest"), partial(mahalanobis, 0.1)

UNSUPERVISED: dict[str, Unsupervised] = {
    "random": lambda x: np.random.default_rng(x.seed).random(len(x.test)),
    "k-NN, k = 2": partial(knn, 2),
    **{f"k-NN, k = {k:.0%} of N": partial(knn, k) for k in (0.01, 0.02, 0.05, 0.2, 0.5)},
    "k-NN, mean of the nearest 1 %": lambda x: x.near[0][:, : _rank(x, 0.01)].mean(axis=1),
    **{f"k-NN, k = 1 %, N = {n}": partial(knn_stream, n) for n in (256, 1024)},
    "relative k-NN, k = 2 %": _RELATIVE,
    **{f"Mahalanobis, shrinkage {a}": partial(mahalanobis, a) for a in (0.01, 0.1, 0.5)},
    **{f"PCA residual, {v:.0%} removed": partial(pca_residual, v) for v in (0.6, 0.8)},
    **{f"Mahalanobis, first {m} axes": partial(pca_mahalanobis, m) for m in (10, 50)},
    "PCA-whitened (50 axes), then k-NN": partial(pca_knn, 0, 50, 0.5),
    "half whitened (50 axes), then k-NN": partial(pca_knn, 0, 50, 0.25),
    "first 5 axes removed, then k-NN": partial(pca_knn, 5, None, 0.0),
    "independent components, largest": partial(ica_peak, 50),
    "tail probabilities (ECOD)": tail_probability,
    "kernel variance, narrow": partial(kernel_variance, 0.3),
    "kernel variance, wide": partial(kernel_variance, 3.0),
    "isolation forest": _FOREST,
    "one-class SVM": one_class_svm,
    "Gaussian mixture, 10": partial(gaussian_mixture, 10, 30),
    "LOF, 20 neighbours": partial(product, "lof"),
    **{f"density ratio, k = {k:.0%}": partial(density_ratio, k) for k in (0.01, 0.05)},
    "density jump, 10 to 100": partial(density_jump, 10, 10),
    "hubness: minus in-degree, k = 5 %": partial(in_degree, 0.05),
    **{f"cluster frequency, {k}": partial(cluster_frequency, k, 0.0) for k in (10, 50, 200)},
    "prototype usage (soft), 200": partial(cluster_frequency, 200, 0.05),
    "cluster frequency, mean of 4 scales": lambda x: combined(
        [partial(cluster_frequency, k, 0.05) for k in (20, 50, 100, 200)], x
    ),
    "merged clusters, 200 to 30": partial(merged_clusters, 200, 30),
    "small clusters (HDBSCAN)": small_density_clusters,
    "distance to own centroid, 50": lambda x: x.kmeans(50)[2].min(axis=1),
    "entropy of the clusters, 50": partial(cluster_entropy, 50),
    "spectral leverage, 30 vectors": partial(heat, 30, 0),
    "heat kernel, 20 steps": partial(heat, 100, 20),
    "patches, mean of the worst 10 %": partial(product, "patch-knn"),
    "k-NN + Mahalanobis": partial(combined, [partial(knn, 0.01), _MAHALANOBIS]),
    "k-NN + Mahalanobis + forest": partial(combined, [partial(knn, 0.01), _MAHALANOBIS, _FOREST]),
    "relative k-NN + PCA residual": partial(combined, [_RELATIVE, _RESIDUAL]),
}


def cosine(x: Stream, exemplars: np.ndarray) -> np.ndarray:
    return x.test @ normalize(exemplars).mean(axis=0)


def ridge(r: float, x: Stream, exemplars: np.ndarray) -> np.ndarray:
    """The training method's scorer."""

    def make() -> ExemplarScorer:
        scorer = ExemplarScorer(x.fit.shape[1], ridge=r, min_samples=2)
        scorer.fit(torch.from_numpy(x.fit))
        return scorer

    scorer = x.once(("ridge", r), make).set_exemplars(torch.from_numpy(exemplars))
    return scorer.ood_score(torch.from_numpy(x.test)).numpy()


def kernel_ridge(width: float, r: float, x: Stream, exemplars: np.ndarray) -> np.ndarray:
    """The ridge in the space of an RBF kernel, from at most 1024 rows of the stream.

    ``width`` is the exponent at the mean squared distance; towards 0 the kernel becomes linear.
    """
    reference, towards = x.some(1024).astype(np.float64), normalize(exemplars)

    def make() -> tuple[Any, ...]:
        rate = width / (2 - 2 * reference @ reference.T).mean()

        def kernel(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
            return np.exp(-rate * (2 - 2 * rows @ others.T))

        inner, outer = kernel(reference, reference), kernel(x.test, reference)
        mean = inner.mean(axis=1)
        centred = (inner - mean - mean[:, None] + mean.mean()) / len(inner)
        ridged = centred + r * np.trace(centred) * np.eye(len(inner))
        cross = (outer - mean - outer.mean(axis=1, keepdims=True) + mean.mean()) / len(inner)
        return kernel, mean, outer.mean(axis=1), linalg.solve(ridged, cross.T, assume_a="pos").T

    kernel, mean, outer_mean, explained = x.once(("kernel", width, r), make)
    offset = kernel(reference, towards).mean(axis=1) - mean
    return kernel(x.test, towards).mean(axis=1) - outer_mean - explained @ (offset - offset.mean())


def _white(x: Stream) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return the scored rows and a map for exemplars into the space where the ridge is a product.

    There all directions have the same (regularised) variance.
    """
    axes, variances = x.pca
    scaled = axes / np.sqrt(variances + 0.1 * variances.sum())
    centre = x.fit.mean(axis=0)
    return (x.test - centre) @ scaled, lambda rows: (normalize(rows) - centre) @ scaled


def white_cosine(nearest: bool, x: Stream, exemplars: np.ndarray) -> np.ndarray:
    test, map_rows = x.once("white", lambda: _white(x))
    towards = normalize(map_rows(exemplars))
    similar = normalize(test) @ towards.T
    return similar.max(axis=1) if nearest else similar.mean(axis=1)


def logistic(c: float, x: Stream, exemplars: np.ndarray) -> np.ndarray:
    model = LogisticRegression(C=c, class_weight="balanced", max_iter=500)
    return _classify(model, x, exemplars, x.fit)


def bagging(x: Stream, exemplars: np.ndarray) -> np.ndarray:
    """20 linear SVMs, each of the exemplars against as many of the stream (Mordelet, Vert 2014)."""
    rng = np.random.default_rng(x.seed)
    draws = [x.fit[rng.choice(x.n, len(exemplars), replace=False)] for _ in range(20)]
    return np.sum([_classify(LinearSVC(C=0.001), x, exemplars, one) for one in draws], axis=0)


def rbf_svm(x: Stream, exemplars: np.ndarray) -> np.ndarray:
    return _classify(SVC(C=1.0, class_weight="balanced"), x, exemplars, x.some(1000))


def _classify(model: Any, x: Stream, exemplars: np.ndarray, unlabelled: np.ndarray) -> np.ndarray:
    """Exemplars against (a part of) the stream, on features of variance 1 on average."""
    scale = x.fit.std(axis=0).mean()
    both = np.concatenate([normalize(exemplars), unlabelled]) / scale
    labels = np.arange(len(both)) < len(exemplars)
    return model.fit(both, labels).decision_function(x.test / scale)


def self_training(x: Stream, exemplars: np.ndarray) -> np.ndarray:
    """A second ridge, towards the exemplars and the fifth of the stream that scored highest."""
    inner = x.once("inner", lambda: Stream(x.feats[0], x.feats[0], x.seed))
    found = x.fit[np.argsort(-ridge(0.05, inner, exemplars))[: x.n // 5]]
    return ridge(0.05, x, np.stack([normalize(exemplars).mean(axis=0), found.mean(axis=0)]))


def label_spreading(x: Stream, exemplars: np.ndarray) -> np.ndarray:
    """Random walks from the exemplars over the 10-NN graph (Zhou et al., 2004), 20 steps."""
    rows = x.own[1][:, :10]
    seeds = _neighbours(normalize(exemplars), x.fit, 1)[1].ravel()
    start = np.bincount(seeds, minlength=x.n) / len(seeds)
    heat_now = start
    for _ in range(20):
        heat_now = 0.9 * heat_now[rows].mean(axis=1) + 0.1 * start
    return heat_now[x.near[1][:, :10]].mean(axis=1)


def best_patches(x: Stream, exemplars: np.ndarray) -> np.ndarray:
    """The ridge's direction on patches, mean of the better half, for objects that are small."""
    ridge(0.05, x, exemplars)
    direction = x.once(("ridge", 0.05), lambda: None).direction
    scores = [patches @ direction for patches in x.feats[1].patches or ()]
    return np.array([float(one.topk(len(one) // 2).values.mean()) for one in scores])


SUPERVISED: dict[str, Supervised] = {
    "cosine to the exemplars": cosine,
    **{f"ridge, r = {r}": partial(ridge, r) for r in (0.01, 0.02, 0.03, 0.05, 0.1, 0.3)},
    "kernel ridge, width 0.3, r = 0.05": partial(kernel_ridge, 0.3, 0.05),
    "kernel ridge, width 1, r = 0.05": partial(kernel_ridge, 1.0, 0.05),
    "kernel ridge, width 1, r = 0.01": partial(kernel_ridge, 1.0, 0.01),
    "whitened, mean cosine": partial(white_cosine, False),
    "whitened, nearest exemplar": partial(white_cosine, True),
    **{f"logistic, C = {c}": partial(logistic, c) for c in (0.0003, 0.001, 0.01)},
    "bagging of linear SVMs": bagging,
    "RBF SVM": rbf_svm,
    "ridge + bagging": lambda x, e: _ranks(ridge(0.05, x, e)) + _ranks(bagging(x, e)),
    "self-training": self_training,
    "label spreading": label_spreading,
}
IMAGES_ONLY: dict[str, Supervised] = {"ridge on the better half of the patches": best_patches}

Numbers = dict[str, list[list[float]]]  # detector -> one row a seed or draw -> the metrics


def quality(rare: np.ndarray, scores: np.ndarray, share: float) -> list[float]:
    """Return lift at ``share`` flagged, AUROC, and average precision / base rate."""
    ranking = ranking_metrics(rare, scores)
    return [top_lift(rare, scores, share), ranking["auroc"], ranking["ap"] / rare.mean()]


def resumed(path: Path, names: list[str], compute: Callable[[list[str]], Numbers]) -> Numbers:
    """Return the numbers of ``names`` from disk, computing those that are not there."""
    known: Numbers = json.loads(path.read_text()) if path.is_file() else {}
    missing = [name for name in names if name not in known]
    if missing:
        print(f"{path.stem}: {len(missing)} detectors", file=sys.stderr, flush=True)
        known |= compute(missing)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known))
    return {name: known[name] for name in names}


def unsupervised_numbers(feats: Feats, rare: np.ndarray, seed: int, names: list[str]) -> Numbers:
    """Cross-fit in 5 folds: every sample is scored by a detector that never saw it."""
    scores = {name: np.zeros(len(rare)) for name in names}
    for fit, test in KFold(5, shuffle=True, random_state=seed).split(rare):
        torch.manual_seed(seed)
        stream = Stream(feats[fit], feats[test], seed)
        for name in names:
            scores[name][test] = UNSUPERVISED[name](stream)
    return {name: [quality(rare, scores[name], 0.05)] for name in names}


def exemplar_numbers(feats: Feats, rare: np.ndarray, names: list[str]) -> Numbers:
    """Exemplars from one half, scores of the other, both ways; mean of the two, once a draw."""
    halves = list(KFold(2, shuffle=True, random_state=0).split(rare))
    found: dict[str, list[list[list[float]]]] = {name: [] for name in names}
    for fit, test in halves:
        stream, pool = Stream(feats[fit], feats[test]), fit[rare[fit]]
        for name in names:
            scores = [SUPERVISED[name](stream, feats.pooled[rows]) for rows in draws_of(pool)]
            found[name].append([quality(rare[test], one, 0.05) for one in scores])
    return {name: np.mean(numbers, axis=0).tolist() for name, numbers in found.items()}


def draws_of(pool: np.ndarray, count: int = N_EXEMPLARS) -> list[np.ndarray]:
    rngs = [np.random.default_rng(draw) for draw in range(DRAWS)]
    return [rng.choice(pool, min(count, len(pool)), replace=False) for rng in rngs]


def table(title: str, columns: dict[str, Numbers], metrics: dict[str, int]) -> str:
    """Return Markdown: mean +- 95 % t-interval over seeds or draws; the best mean in bold."""
    cells: dict[str, list[str]] = {}
    heads = [f"{column} {metric}".strip() for column in columns for metric in metrics]
    for numbers in columns.values():
        for index in metrics.values():
            values = {name: np.array(rows)[:, index] for name, rows in numbers.items()}
            best = max(values, key=lambda name: values[name].mean())
            for name, one in values.items():
                text = f"{one.mean():.2f}"
                if np.ptp(one) > 0:
                    text += f" ± {stats.sem(one) * stats.t.ppf(0.975, len(one) - 1):.2f}"
                cells.setdefault(name, []).append(f"**{text}**" if name == best else text)
    lines = [f"| {title} | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    return "\n".join(lines + [f"| {name} | {' | '.join(row)} |" for name, row in cells.items()])


def long_tail_tables(name: str, tails: list[Split], feats: Feats, of: Split, args: Any) -> None:
    """Study one label an image; ``feats`` are those of the split ``of``, which holds all tails."""
    rows = {path: row for row, path in enumerate(of.paths)}
    names = [n for n in UNSUPERVISED if feats.patches is not None or "patches" not in n]
    found: dict[str, dict[str, Numbers]] = {"unsupervised": {}, "10 exemplars": {}}
    for order, tail in zip(ORDERS, tails):
        rare_ids = rare_classes(tail.labels)
        rare = np.isin(tail.labels, rare_ids)
        classes = ", ".join(tail.classes[label] for label in rare_ids)
        print(f"{name}, order {order}: {len(rare):,} images, {rare.mean():.1%} rare ({classes})\n")
        part = feats[np.array([rows[path] for path in tail.paths])]
        column, stem = f"order {order}", f"{name}, order {order}"
        once = [
            resumed(
                args.results / f"{stem}, seed {seed}.json",
                names,
                partial(unsupervised_numbers, part, rare, seed),
            )
            for seed in range(args.seeds)
        ]
        found["unsupervised"][column] = {n: [row for one in once for row in one[n]] for n in names}
        file = args.results / f"{stem}, exemplars.json"
        compute = partial(exemplar_numbers, part, rare)
        found["10 exemplars"][column] = resumed(file, list(SUPERVISED), compute)
    for kind, columns in found.items():
        orders = list(columns.values())
        mean = {n: np.mean([one[n] for one in orders], axis=0).tolist() for n in orders[0]}
        lifts = table(f"{name}, {kind}", columns, {"lift": 0}).splitlines()
        means = table("", {"mean": mean}, {"lift": 0, "AUROC": 1, "AP / base": 2}).splitlines()
        print("\n".join(a + b.split("|", 2)[2] for a, b in zip(lifts, means)) + "\n", flush=True)


def read_camvid(root: Path) -> tuple[Split, int]:
    """Return the frames of both splits, and how many of them are to be fitted on."""
    fit, test = (one for one in read_splits(root) if one is not None)
    shares = np.concatenate([fit.shares, test.shares])
    paths, masks = fit.paths + test.paths, fit.masks + test.masks
    return replace(fit, paths=paths, masks=masks, shares=shares), len(fit)


def camvid_tasks(
    both: Split, n_fit: int, phase: str
) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
    """Yield the rows to fit on, those to test on, and the rare rows (N,) by definition."""
    official = np.arange(len(both)) < n_fit
    sequences = np.array([path.name.split("_")[0] for path in both.paths])
    held_out = [(sequences != name, sequences == name) for name in sorted(set(sequences))]
    splits = held_out if phase == PHASES[2] else [(official, ~official)]
    for masks in splits + held_out if phase == PHASES[0] else splits:
        fit, test = (np.flatnonzero(mask) for mask in masks)
        rares = {}
        for definition in TUNED if phase == PHASES[0] else FINAL:
            ids = [both.classes.index(one) for one in definition.split("+")]
            rare = np.zeros(len(both), dtype=bool)
            for rows in (fit, test):
                share = both.shares[rows][:, ids].sum(axis=1)
                rare[rows] = share > np.quantile(share, 1 - POSTER_BASE_RATE)
            if rare[fit].sum() >= N_EXEMPLARS and rare[test].sum() >= 5:
                rares[definition] = rare
        yield fit, test, rares


def camvid_tables(both: Split, n_fit: int, variants: dict[str, Feats], args: Any) -> None:
    """Study driving frames: tune on some classes and on whole sequences, check on others."""

    def numbers(feats: Feats, phase: str, names: list[str]) -> Numbers:
        found: dict[str, list[list[list[float]]]] = {name: [] for name in names}
        for fit, test, rares in camvid_tasks(both, n_fit, phase):
            streams = [Stream(feats[fit], feats[test], seed) for seed in range(args.seeds)]
            plain = {n: [UNSUPERVISED[n](x) for x in streams] for n in names if n in UNSUPERVISED}
            for rare in rares.values():
                draws = draws_of(fit[rare[fit]])
                for name in names:
                    detect = {**SUPERVISED, **IMAGES_ONLY}.get(name)
                    scores = plain.get(name) or [
                        detect(streams[0], feats.pooled[rows]) for rows in draws if detect
                    ]
                    found[name].append([quality(rare[test], one, 0.2) for one in scores])
        return {name: np.mean(rows, axis=0).tolist() for name, rows in found.items()}

    base, *others = variants.items()
    columns: dict[str, dict[str, Numbers]] = {"unsupervised": {}, "10 exemplars": {}}
    for phase in PHASES:
        for kind, names in (
            ("unsupervised", list(UNSUPERVISED)),
            ("10 exemplars", [*SUPERVISED, *IMAGES_ONLY]),
        ):
            file = args.results / f"camvid, {kind}, {phase}, {args.seeds} seeds.json"
            columns[kind][phase] = resumed(file, names, partial(numbers, base[1], phase))
        for variant, feats in others:
            file = args.results / f"camvid, {variant}, {phase}.json"
            chosen = ["ridge, r = 0.05", "ridge, r = 0.1", "bagging of linear SVMs"]
            more = resumed(file, chosen, partial(numbers, feats, phase))
            columns["10 exemplars"][phase] |= {f"{n} ({variant})": more[n] for n in chosen}
    for kind, found in columns.items():
        print("\n" + table(f"camvid, {kind}", found, {"AUROC": 1, "lift": 0}) + "\n", flush=True)


def main(args: Namespace) -> None:
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", ".*onverge.*")

    # By weights: another network's results are not to be taken for these.
    args.results = args.out / "results" / Path(args.embedder).stem

    def features(split: Split, root: Path, side: int, stage: str = "last") -> Feats:
        embedder = make_embedder(args.embedder, stage, patches=stage == "last")
        cfg = ExtractConfig(args.out / "embeddings", side, 64, 1, args.accelerator, 1)
        found = embed(split, embedder, cfg, root, f"{root.name}, {side} px")
        return Feats(found.pooled, Rows(found.patches) if found.patches is not None else None)

    if "digits" in args.data:
        root = Path(digits_lt("reference"))
        split = read_splits(root)[0]
        pixels = load_digits().data.astype(np.float32)[[int(path.stem) for path in split.paths]]
        tails = [long_tailed(split, 20, order)[0] for order in ORDERS]
        long_tail_tables("digits, pixels", tails, Feats(pixels), split, args)
        long_tail_tables("digits, network", tails, features(split, root, 128), split, args)
    if "cifar" in args.data:
        split = read_splits(args.cifar)[0]
        tails = [long_tailed(split, 100, order)[0] for order in ORDERS]
        used = {path for tail in tails for path in tail.paths}
        split = split.keep(np.array([path in used for path in split.paths]))
        # Without patches: at 16 an image they would take longer than all the others together.
        pooled = Feats(features(split, args.cifar, 128).pooled)
        long_tail_tables("CIFAR-10-LT", tails, pooled, split, args)
    if "camvid" in args.data:
        both, n_fit = read_camvid(args.camvid)
        at = {side: features(both, args.camvid, side) for side in (224, 360, 512)}
        early = normalize(features(both, args.camvid, 360, "3").pooled) / 2
        joined = {
            "": at[512],
            "224 + 360 + 512 px": Feats(np.hstack([normalize(one.pooled) for one in at.values()])),
            "an earlier stage beside it": Feats(np.hstack([early, normalize(at[512].pooled)])),
        }
        camvid_tables(both, n_fit, joined, args)


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("data", nargs="+", choices=["digits", "cifar", "camvid"])
    add("--embedder", required=True, help="as for `solo-ood detect`")
    add("--cifar", type=Path, help="the training images of CIFAR-10, a folder a class")
    add("--camvid", type=Path, help="driving frames in BDD100K's layout")
    add("--out", type=Path, default=Path("study"), help="embeddings and results")
    add("--seeds", type=int, default=3, help="of the folds and of detectors that draw")
    add("--accelerator", default="cpu")
    main(parser.parse_args())
