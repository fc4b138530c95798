"""The features that a detector is fitted on and those it scores, and what several need of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

from solo_ood.detection.feats import Feats


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

    def cached(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return ``make()``, computed at the first call with ``key``."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    @cached_property
    def near(self) -> tuple[np.ndarray, np.ndarray]:
        """Cosine distances (M, N) of the scored to the fit rows, ascending, and their indexes."""
        return neighbours(self.test, self.fit, self.n)

    @cached_property
    def own(self) -> tuple[np.ndarray, np.ndarray]:
        """The same among the fit rows, without the row itself: (N, 5 % of N)."""
        distances, rows = neighbours(self.fit, self.fit, self.n // 20 + 10)
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

        return self.cached(("kmeans", k), make)


def neighbours(rows: np.ndarray, reference: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    chunks = torch.from_numpy(rows).split(512)
    columns = torch.from_numpy(reference).T
    found = [(chunk @ columns).topk(min(k, len(reference)), dim=1) for chunk in chunks]
    distances = 1 - torch.cat([top.values for top in found])
    return distances.clamp(min=1e-7).numpy(), torch.cat([top.indices for top in found]).numpy()


def ranks(values: np.ndarray) -> np.ndarray:
    return stats.rankdata(values) / len(values)
