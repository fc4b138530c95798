"""Classify frozen features: weighted k-NN as solo-learn does it, and a linear probe."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

CS = tuple(10.0**power for power in range(-4, 3))  # inverse strengths of the L2 penalty
_HELD_OUT = 0.2  # share of each class's samples on which the strength is chosen


class Votes(NamedTuple):
    """What a classifier says of M images.

    Attributes:
        predictions: (M,) int64 class ids.
        shares: (M, C) of each class id, in [0, 1]: of the neighbours' vote, or the probability.
        c: the inverse penalty that a linear probe chose.
        converged: whether its solver did.
    """

    predictions: np.ndarray
    shares: np.ndarray
    c: float = float("nan")
    converged: bool = True


def knn(
    reference: np.ndarray,
    targets: np.ndarray,
    feats: np.ndarray,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 5_000_000,
) -> Votes:
    """Classify each of ``feats`` by a vote of its k nearest neighbours.

    The vote of solo-learn's ``WeightedKNNClassifier`` (Wu et al., 2018, arXiv:1805.01978): weight
    exp(s / T), s the cosine similarity.

    Args:
        reference: (N, D).
        targets: (N,) class ids of the reference.
        feats: (M, D).
        k: neighbours; all N if there are fewer.
        temperature: T.
        chunk: similarities computed at a time.
    """
    known, unknown = (F.normalize(torch.from_numpy(x).float()) for x in (reference, feats))
    labels = torch.from_numpy(targets)
    found: list[torch.Tensor] = []
    for rows in unknown.split(max(1, chunk // len(known))):
        similarities, nearest = (rows @ known.T).topk(min(k, len(known)))
        # Relative to the nearest one: the same vote, and exp does not overflow at a small T.
        weights = ((similarities - similarities[:, :1]) / temperature).exp()
        votes = torch.zeros(len(rows), int(labels.max()) + 1)
        votes.scatter_add_(1, labels[nearest], weights)
        found.append(votes)
    votes = torch.cat(found)
    return Votes(votes.argmax(dim=1).numpy(), F.normalize(votes, p=1, dim=1).numpy())


def linear_probe(
    reference: np.ndarray,
    targets: np.ndarray,
    feats: np.ndarray,
    seed: int = 0,
    cs: Sequence[float] = CS,
    tell: Callable[[], object] = lambda: None,
) -> Votes:
    """Fit logistic regression on standardised features and classify ``feats``.

    The strength of the L2 penalty is the one that is right most often on a held-out fifth of the
    reference (of equal ones the strongest); then all of the reference is fitted with it.

    Args:
        reference: (N, D).
        targets: (N,) class ids, at least two different ones.
        feats: (M, D).
        seed: of what is held out.
        cs: the strengths to choose from, ascending.
        tell: called after each of the ``len(cs) + 1`` fits.
    """
    mean, std = reference.mean(axis=0), reference.std(axis=0)
    known, unknown = ((x - mean) / np.where(std > 0, std, 1) for x in (reference, feats))
    held = _holdout_mask(targets, seed)
    model, rights = _model(), []
    for c in cs:
        if held.any():
            _fit(model, known[~held], targets[~held], c)  # from the solution of the C before
            rights.append(float((model.predict(known[held]) == targets[held]).mean()))
        tell()
    best, model = cs[int(np.argmax(rights))] if rights else 1.0, _model()
    converged = _fit(model, known, targets, best)
    tell()
    shares = np.zeros((len(unknown), int(targets.max()) + 1), dtype=np.float32)
    shares[:, model.classes_] = model.predict_proba(unknown)
    return Votes(model.predict(unknown).astype(np.int64), shares, best, converged)


def _model() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=2000, warm_start=True)  # L-BFGS, multinomial


def _fit(model: Any, feats: np.ndarray, targets: np.ndarray, c: float) -> bool:
    """Fit; return whether it converged."""
    from sklearn.exceptions import ConvergenceWarning

    model.set_params(C=c)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(feats, targets)
    return bool(model.n_iter_.max() < model.max_iter)


def _holdout_mask(targets: np.ndarray, seed: int) -> np.ndarray:
    """Return (N,) bool, a part of each class; never the last samples of one: at least one stays."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(targets), dtype=bool)
    for label in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == label))
        held[members[: round(_HELD_OUT * len(members))]] = True
    return held
