"""The detectors that see the stream only. **Higher score = rarer**, for every one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy import linalg, sparse, stats
from scipy.sparse.linalg import eigsh
from sklearn.cluster import HDBSCAN, AgglomerativeClustering
from sklearn.decomposition import FastICA
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import normalize
from sklearn.svm import OneClassSVM
from stream import Stream, neighbours, ranks

from solo_ood.detection.detectors import DETECTORS
from solo_ood.selection.scorers import KNNScorer, MahalanobisScorer

Unsupervised = Callable[[Stream], np.ndarray]


def _rank(x: Stream, k: float) -> int:
    """Return a number of neighbours; below 1 it is a share of N."""
    return max(2, round(k * x.n)) if k < 1 else int(k)


def knn(k: float, x: Stream) -> np.ndarray:
    return x.near[0][:, _rank(x, k) - 1]


def product(name: str, x: Stream) -> np.ndarray:
    """A detector of ``solo-ood measure``."""
    return DETECTORS[name].fit(x.feats[0], x.seed)(x.feats[1], None)


def knn_stream(n_reference: int, x: Stream) -> np.ndarray:
    """The training method's scorer, which remembers the newest N samples."""
    fit, test = (torch.from_numpy(rows) for rows in (x.fit, x.test))
    scorer = KNNScorer(fit.shape[1], n_reference, min_samples=2)
    return scorer.fit(fit[torch.randperm(len(fit))]).ood_score(test).numpy()


def mahalanobis(shrinkage: float, x: Stream) -> np.ndarray:
    fit, test = (torch.from_numpy(rows) for rows in (x.fit, x.test))
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
    fit, test = (normalize(rows[:, first:]).astype(np.float32) for rows in x.projected(last, power))
    return neighbours(test, fit, max(2, x.n // 100))[0][:, -1]


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
    values, vectors = x.cached("graph", lambda: _graph(x))
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
    return np.sum([ranks(part(x)) for part in parts], axis=0)


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
