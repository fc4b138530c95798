"""Time our scorers beside other libraries on the same features: ``make bench-scorers``.

Every figure is a ratio of medians taken in one run, in turns, so that a noisy machine disturbs all
of them alike. Needs the extra `benchmark` (pytorch-ood, faiss-cpu, pyod).
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable

import faiss
import numpy as np
import timm
import torch
import torch.nn.functional as F
from pyod.models.knn import KNN as PyODKNN
from pytorch_ood.detector import KNN as TorchOODKNN
from pytorch_ood.detector import Mahalanobis as TorchOODMahalanobis
from scipy.stats import spearmanr
from sklearn.covariance import ShrunkCovariance
from sklearn.neighbors import NearestNeighbors
from timing import medians

from solo_ood.pages import markdown
from solo_ood.selection.scorers import ExemplarScorer, Scorer, make_scorer
from solo_ood.settings.schema import ScorerConfig

# A network of each feature size: what is scored has to be embedded first.
NETWORKS = {384: "vit_small_patch16_224", 768: "vit_base_patch16_224", 2048: "resnet50"}
K, SHRINKAGE, STEPS = 10, 0.1, 10
Score = Callable[[], np.ndarray]


def fitted(reference: torch.Tensor) -> dict[str, Scorer]:
    """Return our scorers, fitted, by name."""
    result: dict[str, Scorer] = {}
    for name in ("knn", "mahalanobis", "exemplar", "random"):
        cfg = ScorerConfig(name, len(reference), k=K, shrinkage=SHRINKAGE)
        scorer = make_scorer(cfg, reference.shape[1])
        if isinstance(scorer, ExemplarScorer):
            scorer.set_exemplars(reference[:10])
        scorer.fit(reference)
        result[name] = scorer
    return result


def numbers(rows: torch.Tensor) -> torch.Tensor:
    """Return dataset indexes for ``rows``, as a training step has them."""
    return torch.arange(len(rows))


def ours(reference: torch.Tensor, query: torch.Tensor) -> dict[str, Score]:
    """Return the scores of our scorers, by name."""
    return {
        name: lambda scorer=scorer: scorer.ood_score(query, indexes=numbers(query)).numpy()
        for name, scorer in fitted(reference).items()
    }


def streaming(reference: torch.Tensor, query: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Return ten training steps of each of our scorers: score a batch, then learn it.

    Ten, since a covariance is factorised at every tenth step only.
    """

    def steps(scorer: Scorer) -> None:
        for _ in range(STEPS):
            scorer.ood_score(query, indexes=numbers(query))
            scorer.partial_fit(query, indexes=numbers(query))

    return {
        f"{name}, score and learn": lambda scorer=scorer: steps(scorer)
        for name, scorer in fitted(reference).items()
    }


def others(reference: torch.Tensor, query: torch.Tensor) -> dict[str, tuple[str, Score]]:
    """Return (our scorer that it corresponds to, score) of the other libraries by name.

    The scores are brought to our definition where it is the same: 1 - cosine from a Euclidean
    distance d of unit vectors is d^2 / 2.
    """
    unit, asked = F.normalize(reference, dim=1), F.normalize(query, dim=1)
    rows, points = unit.numpy(), asked.numpy()
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    neighbours = NearestNeighbors(n_neighbors=K, metric="cosine", algorithm="brute").fit(rows)
    pyod = PyODKNN(n_neighbors=K, metric="cosine", algorithm="brute").fit(rows)
    torch_ood = TorchOODKNN(None, k=K).fit_features(reference, torch.zeros(len(reference)).long())
    shrunk = ShrunkCovariance(shrinkage=SHRINKAGE).fit(rows)
    gaussian = TorchOODMahalanobis(None).fit_features(unit, torch.zeros(len(unit)).long())
    return {
        "faiss-cpu IndexFlatIP": ("knn", lambda: 1 - index.search(points, K)[0][:, -1]),
        "scikit-learn NearestNeighbors": (
            "knn",
            lambda: neighbours.kneighbors(points)[0][:, -1],
        ),
        "pyod KNN": ("knn", lambda: pyod.decision_function(points)),
        "pytorch-ood KNN": (
            "knn",
            lambda: torch_ood.predict_features(query).numpy() ** 2 / 2,
        ),
        "scikit-learn ShrunkCovariance": ("mahalanobis", lambda: shrunk.mahalanobis(points)),
        "pytorch-ood Mahalanobis": (
            "mahalanobis",
            lambda: gaussian.predict_features(asked).numpy(),
        ),
    }


def agreement(mine: np.ndarray, theirs: np.ndarray) -> str:
    """Say whether two scores are equal, or how well they rank alike."""
    if np.allclose(mine, theirs, rtol=1e-3, atol=1e-4):
        return f"equal (largest difference {np.abs(mine - theirs).max():.0e})"
    return f"other definition, rank correlation {spearmanr(mine, theirs)[0]:.3f}"


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=int, default=1024, help="N")
    parser.add_argument("--batch", type=int, default=32, help="images embedded and scored at once")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    print(markdown.head(("D", "scorer", "share of embedding", "time / ours", "scores")))
    for dim, architecture in NETWORKS.items():
        torch.manual_seed(0)
        # A decaying spectrum, as features have: not all directions alike.
        spectrum = torch.arange(1, dim + 1) ** -0.5
        reference = torch.randn(args.reference, dim) * spectrum + 0.1
        query = torch.randn(args.batch, dim) * spectrum + 0.1
        network = timm.create_model(architecture).eval()
        images = torch.randn(args.batch, 3, 224, 224)

        def embed(network: torch.nn.Module = network, images: torch.Tensor = images) -> None:
            with torch.inference_mode():
                network(images)

        mine, theirs = ours(reference, query), others(reference, query)
        training = streaming(reference, query)
        calls = {**mine, **{name: call for name, (_, call) in theirs.items()}, **training}
        seconds = medians(calls, 3 * args.rounds) | medians({"embed": embed}, args.rounds // 3)
        for name in mine:
            share = f"{seconds[name] / seconds['embed']:.3%} of {architecture}"
            print(markdown.row((dim, f"**{name}**", share, 1, "–")), flush=True)
        for name in training:
            share = f"{seconds[name] / STEPS / seconds['embed']:.3%}"
            print(markdown.row((dim, f"**{name}**", share, "–", "–")), flush=True)
        for name, (same, call) in theirs.items():
            share = f"{seconds[name] / seconds['embed']:.3%}"
            ratio = f"{seconds[name] / seconds[same]:.1f}"
            said = agreement(mine[same](), call())
            print(markdown.row((dim, name, share, ratio, said)), flush=True)


if __name__ == "__main__":
    main()
