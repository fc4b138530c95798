"""Every detector that can be measured, by name: fit on embeddings, score embeddings.

One entry of ``DETECTORS`` is all that a detector needs, also one of another package:
``DETECTORS["mine"] = Detector("mine", build)``. The help of the command line names them, so that
torch and the like are imported on use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from solo_ood.detection.feats import Feats, required
from solo_ood.errors import unknown_name

# Scores images (N,); exemplars (E, D) only for a detector that needs some.
Score = Callable[[Feats, Feats | None], np.ndarray]
# Learns the fit split with a seed and settings, and returns what scores.
Build = Callable[..., Score]


@dataclass(frozen=True)
class Detector:
    """A detector of rare images. **Higher score = rarer.**

    Attributes:
        name: as on the command line.
        build: ``build(feats, seed, **settings)`` returns the function that scores.
        settings: of this detector.
        exemplars: whether it needs exemplars.
        patches: whether it needs patch features.
        regions: whether it needs to know where in the exemplars what matters is.
        learns: whether it looks at the fit split; if not, it has seen none of its images.
        seeded: whether two fits on the same samples differ.
    """

    name: str
    build: Build
    settings: Mapping[str, Any] = field(default_factory=dict)
    exemplars: bool = False
    patches: bool = False
    regions: bool = False
    learns: bool = True
    seeded: bool = False

    def fit(self, feats: Feats, seed: int) -> Score:
        """Return what scores, having learnt ``feats``."""
        return self.build(feats, seed, **self.settings)


def detector(name: str) -> Detector:
    """Return the detector called ``name``.

    Raises:
        UserError: for an unknown name.
    """
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)
    return DETECTORS[name]


def _scorer(feats: Feats, seed: int, scorer: str) -> Score:
    """Build a scorer of the training method, with all fit samples as its reference."""
    from solo_ood.detection.scorers import SCORERS

    return SCORERS[scorer](feats, seed)


def _isolation_forest(feats: Feats, seed: int) -> Score:
    from sklearn.ensemble import IsolationForest

    return _scikit_learn(IsolationForest(random_state=seed), feats)


def _lof(feats: Feats, seed: int, neighbours: int) -> Score:
    from sklearn.neighbors import LocalOutlierFactor

    known = min(neighbours, len(feats) - 1)
    return _scikit_learn(LocalOutlierFactor(n_neighbors=known, novelty=True), feats)


def _scikit_learn(model: Any, feats: Feats) -> Score:
    """Fit an outlier detector of scikit-learn, whose ``score_samples`` runs the other way."""
    model.fit(_unit(feats.pooled))
    return lambda test, exemplars: -model.score_samples(_unit(test.pooled))


def _pca(feats: Feats, seed: int, variance: float) -> Score:
    """Squared distance to the subspace of this share of the variance (Jackson, Mudholkar, 1979)."""
    from sklearn.decomposition import PCA

    model = PCA(variance, svd_solver="full").fit(_unit(feats.pooled))

    def score(test: Feats, exemplars: Feats | None) -> np.ndarray:
        rows = _unit(test.pooled)
        inside = np.square(model.transform(rows)).sum(axis=1)
        return np.square(rows - model.mean_).sum(axis=1) - inside

    return score


def _patch_knn(feats: Feats, seed: int, memory: int, share: float) -> Score:
    """Mean cosine distance of the most unusual patches of an image to their nearest fit patch.

    ``memory`` patches of the fit split are kept; ``share`` of an image's patches count. After
    PatchCore (Roth et al., 2022, arXiv:2106.08265), with a random memory instead of a greedy
    coreset, and a mean instead of the maximum.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    per_image = -(-memory // len(feats))
    # In random order, so that what does not fit is of any images and not of the last.
    images = torch.randperm(len(feats), generator=generator)[:memory].numpy()
    drawn = [
        patches[torch.randperm(len(patches), generator=generator)[:per_image]]
        for patches in required(feats.patches)[images]
    ]
    kept = torch.cat(drawn)[:memory]

    def score(test: Feats, exemplars: Feats | None) -> np.ndarray:
        scores = []
        for patches in required(test.patches):
            distance = 1 - (patches @ kept.T).amax(dim=1)
            unusual = distance.topk(max(1, int(len(distance) * share))).values
            scores.append(float(unusual.mean()))
        return np.array(scores)

    return score


def _exemplar_logistic(feats: Feats, seed: int) -> Score:
    """Logistic regression of exemplars against the stream, which counts as unlabelled.

    Positive-unlabelled learning (Elkan and Noto, 2008): the ranking is that of a classifier which
    takes the unlabelled for negatives, both sides weighing the same.
    """
    from sklearn.linear_model import LogisticRegression

    stream = _unit(feats.pooled)

    def score(test: Feats, exemplars: Feats | None) -> np.ndarray:
        positive = _unit(required(exemplars).pooled)
        rows = np.concatenate([positive, stream])
        labels = np.arange(len(rows)) < len(positive)
        model = LogisticRegression(class_weight="balanced", max_iter=2000).fit(rows, labels)
        return model.decision_function(_unit(test.pooled))

    return score


def _exemplar_cosine(feats: Feats, seed: int) -> Score:
    """Cosine to the mean exemplar: the simple baseline, which ignores the stream."""

    def score(test: Feats, exemplars: Feats | None) -> np.ndarray:
        mean = _unit(required(exemplars).pooled).mean(axis=0, keepdims=True)
        return (_unit(test.pooled) @ _unit(mean).T)[:, 0]

    return score


def _exemplar_regions(feats: Feats, seed: int) -> Score:
    """Mean of ``region_maps``: the share of an image that looks like the regions, in [0, 1]."""

    def score(test: Feats, exemplars: Feats | None) -> np.ndarray:
        from solo_ood.detection.segmentation import region_map_blocks

        maps = region_map_blocks(test, exemplars)
        return np.concatenate([block.mean(dim=1).numpy() for block in maps])

    return score


def _unit(feats: np.ndarray) -> np.ndarray:
    from sklearn.preprocessing import normalize

    return normalize(feats)


DETECTORS = {
    entry.name: entry
    for entry in (
        Detector("random", _scorer, {"scorer": "random"}, learns=False, seeded=True),
        Detector("knn", _scorer, {"scorer": "knn"}),
        Detector("mahalanobis", _scorer, {"scorer": "mahalanobis"}),
        Detector("isolation-forest", _isolation_forest, seeded=True),
        Detector("lof", _lof, {"neighbours": 20}),
        # Chosen on CIFAR-10-LT, see docs/detectors.md.
        Detector("pca", _pca, {"variance": 0.65}),
        Detector(
            "patch-knn", _patch_knn, {"memory": 10_000, "share": 0.1}, patches=True, seeded=True
        ),
        Detector("exemplar", _scorer, {"scorer": "exemplar"}, exemplars=True),
        Detector("exemplar-logistic", _exemplar_logistic, exemplars=True),
        Detector("exemplar-cosine", _exemplar_cosine, exemplars=True, learns=False),
        Detector(
            "exemplar-regions",
            _exemplar_regions,
            exemplars=True,
            patches=True,
            regions=True,
            learns=False,
        ),
    )
}
