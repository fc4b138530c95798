"""Images with one label each, made long-tailed: handwritten digits, CIFAR-10."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from results import Numbers, draws_of, quality, resumed, table
from sklearn.model_selection import KFold
from stream import Stream
from unsupervised import UNSUPERVISED
from with_exemplars import SUPERVISED

from solo_ood.data.images import Split
from solo_ood.detection.feats import Feats
from solo_ood.selection.classes import rare_classes

ORDERS = (0, 1, 2)  # permutations of the classes


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
            found[name].append([quality(rare[test], draw, 0.05) for draw in scores])
    return {name: np.mean(numbers, axis=0).tolist() for name, numbers in found.items()}


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
        found["unsupervised"][column] = {
            n: [row for numbers in once for row in numbers[n]] for n in names
        }
        file = args.results / f"{stem}, exemplars.json"
        compute = partial(exemplar_numbers, part, rare)
        found["10 exemplars"][column] = resumed(file, list(SUPERVISED), compute)
    for kind, columns in found.items():
        orders = list(columns.values())
        mean = {n: np.mean([order[n] for order in orders], axis=0).tolist() for n in orders[0]}
        lifts = table(f"{name}, {kind}", columns, {"lift": 0}).splitlines()
        means = table("", {"mean": mean}, {"lift": 0, "AUROC": 1, "AP / base": 2}).splitlines()
        print("\n".join(a + b.split("|", 2)[2] for a, b in zip(lifts, means)) + "\n", flush=True)
