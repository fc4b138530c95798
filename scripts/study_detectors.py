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
from collections.abc import Callable
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
from solo_ood.detection.detectors import DETECTORS, Feats, Rows
from solo_ood.embedding.extract import ExtractConfig, embed
from solo_ood.embedding.networks import make_embedder
from solo_ood.evaluation.ranking import ranking_metrics, top_lift
from solo_ood.scorers import ExemplarScorer, KNNScorer, MahalanobisScorer

ORDERS = (0, 1, 2)  # permutations of the classes
TUNED = ("car", "fence", "pole", "sidewalk", "sky", "vegetation", "car+fence", "pole+sidewalk")
FINAL = ("person", "bicycle", "person+bicycle", "sign")  # never used to choose anything
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

    def projected(self, m: int, power: float = 0.0) -> Feats:
        """Return fit and scored rows, on m axes scaled by variance^-power, as one Feats each."""
        axes, variances = self.pca
        scaled = axes[:, :m] * variances[:m] ** -power
        centre = self.fit.mean(axis=0)
        return (self.fit - centre) @ scaled, (self.test - centre) @ scaled  # type: ignore[return-value]

    def kmeans(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return centroids (K, D), cluster sizes (K,) and distances (M, K) of the scored rows."""

        def make() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            clusters = min(k, self.n // 5)
            model = KMeans(clusters, n_init=1, max_iter=30, random_state=self.seed).fit(self.fit)
            sizes = np.bincount(model.labels_, minlength=clusters)
            return model.cluster_centers_, sizes, model.transform(self.test)

        return self.once(("kmeans", k), make)
