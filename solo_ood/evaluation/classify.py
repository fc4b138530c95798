"""Classify validation images from every reference, with features that are embedded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from solo_ood.evaluation.probes import CS, Votes, knn, linear_probe
from solo_ood.evaluation.references import Reference

Tell = Callable[[], object]


@dataclass(frozen=True)
class Method:
    """A classifier.

    Attributes:
        name: ``knn`` or ``linear``.
        classify: takes features (N, D), their class ids (N,), features (M, D) of other images, and
            what to call after each of the ``steps`` of its work.
        settings: its own.
        steps: see ``classify``.
    """

    name: str
    classify: Callable[[np.ndarray, np.ndarray, np.ndarray, Tell], Votes]
    settings: dict[str, Any] = field(default_factory=dict)
    steps: int = 1


def methods_of(
    names: Sequence[str], ks: Sequence[int], temperatures: Sequence[float], seed: int
) -> list[Method]:
    """Return the k-NN with each k and temperature, and the linear probe, as far as named."""

    def neighbours(k: int, temperature: float) -> Method:
        def classify(
            feats: np.ndarray, targets: np.ndarray, asked: np.ndarray, tell: Tell
        ) -> Votes:
            votes = knn(feats, targets, asked, k, temperature)
            tell()
            return votes

        return Method("knn", classify, {"k": k, "temperature": temperature})

    def probe(feats: np.ndarray, targets: np.ndarray, asked: np.ndarray, tell: Tell) -> Votes:
        return linear_probe(feats, targets, asked, seed, tell=tell)

    found = [neighbours(k, temperature) for k in ks for temperature in temperatures]
    found = found if "knn" in names else []
    return found + ([Method("linear", probe, steps=len(CS) + 1)] if "linear" in names else [])


def steps_of(methods: Sequence[Method], references: Sequence[Reference]) -> int:
    """Return the steps of all methods with all references."""
    fits = sum(len(draw) for reference in references for draw in reference.draws)
    return fits * sum(method.steps for method in methods)


@dataclass(frozen=True)
class Classified:
    """What a method says of the M validation images, in each of R draws of a reference.

    Attributes:
        method: its name.
        settings: its own, those that it chose included.
        predictions: (R, M) class ids.
        rare_scores: (R, M) share of the vote, or the probability, of the rare classes.
    """

    method: str
    settings: dict[str, Any]
    predictions: np.ndarray
    rare_scores: np.ndarray


def classified(
    reference: Reference,
    known: tuple[np.ndarray, np.ndarray],
    asked: np.ndarray,
    methods: Sequence[Method],
    rare: Sequence[int],
    tell: Tell = lambda: None,
) -> Iterator[Classified]:
    """Yield what each method says.

    Args:
        reference: what is fitted on what.
        known: (N, D) features of the reference's images and their (N,) class ids.
        asked: (M, D) features of the validation images.
        methods: the classifiers.
        rare: class ids.
        tell: called after each of their steps.
    """
    feats, targets = known
    shape = (len(reference.draws), len(asked))
    for method in methods:
        predictions, rare_scores = np.empty(shape, dtype=np.int64), np.zeros(shape)
        every: list[Votes] = []
        for row, draw in enumerate(reference.draws):
            for fit in draw:
                own = feats[fit.known], targets[fit.known]
                votes = method.classify(*own, asked[fit.asked], tell)
                ids = [label for label in rare if label < votes.shares.shape[1]]
                predictions[row, fit.asked] = votes.predictions
                rare_scores[row, fit.asked] = votes.shares[:, ids].sum(axis=1)
                every.append(votes)
        settings = dict(method.settings)
        if method.name == "linear":
            cs = sorted({votes.c for votes in every})
            settings["C"] = cs[0] if len(cs) == 1 else cs
            settings["converged"] = all(votes.converged for votes in every)
        yield Classified(method.name, settings, predictions, rare_scores)
