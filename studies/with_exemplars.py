"""The detectors that know ten rare images as well. **Higher score = rarer**, for every one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import linalg
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from sklearn.svm import SVC, LinearSVC
from stream import Stream, neighbours, ranks

from solo_ood.selection.scorers import ExemplarScorer

Supervised = Callable[[Stream, np.ndarray], np.ndarray]  # the second: exemplars (E, D)


def cosine(x: Stream, exemplars: np.ndarray) -> np.ndarray:
    return x.test @ normalize(exemplars).mean(axis=0)


def ridge(r: float, x: Stream, exemplars: np.ndarray) -> np.ndarray:
    """The training method's scorer."""

    def make() -> ExemplarScorer:
        scorer = ExemplarScorer(x.fit.shape[1], ridge=r, min_samples=2)
        scorer.fit(torch.from_numpy(x.fit))
        return scorer

    scorer = x.cached(("ridge", r), make).set_exemplars(torch.from_numpy(exemplars))
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

    kernel, mean, outer_mean, explained = x.cached(("kernel", width, r), make)
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
    test, map_rows = x.cached("white", lambda: _white(x))
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
    return np.sum([_classify(LinearSVC(C=0.001), x, exemplars, draw) for draw in draws], axis=0)


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
    inner = x.cached("inner", lambda: Stream(x.feats[0], x.feats[0], x.seed))
    found = x.fit[np.argsort(-ridge(0.05, inner, exemplars))[: x.n // 5]]
    return ridge(0.05, x, np.stack([normalize(exemplars).mean(axis=0), found.mean(axis=0)]))


def label_spreading(x: Stream, exemplars: np.ndarray) -> np.ndarray:
    """Random walks from the exemplars over the 10-NN graph (Zhou et al., 2004), 20 steps."""
    rows = x.own[1][:, :10]
    seeds = neighbours(normalize(exemplars), x.fit, 1)[1].ravel()
    start = np.bincount(seeds, minlength=x.n) / len(seeds)
    heat_now = start
    for _ in range(20):
        heat_now = 0.9 * heat_now[rows].mean(axis=1) + 0.1 * start
    return heat_now[x.near[1][:, :10]].mean(axis=1)


def best_patches(x: Stream, exemplars: np.ndarray) -> np.ndarray:
    """The ridge's direction on patches, mean of the better half, for objects that are small."""
    ridge(0.05, x, exemplars)
    direction = x.cached(("ridge", 0.05), lambda: None).direction
    scores = [patches @ direction for patches in x.feats[1].patches or ()]
    return np.array([float(patches.topk(len(patches) // 2).values.mean()) for patches in scores])


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
    "ridge + bagging": lambda x, e: ranks(ridge(0.05, x, e)) + ranks(bagging(x, e)),
    "self-training": self_training,
    "label spreading": label_spreading,
}
IMAGES_ONLY: dict[str, Supervised] = {"ridge on the better half of the patches": best_patches}
