"""Driving frames, rare by the share of their pixels: tuned on some classes, checked on others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from results import N_EXEMPLARS, Numbers, draws_of, quality, resumed, table
from stream import Stream
from unsupervised import UNSUPERVISED
from with_exemplars import IMAGES_ONLY, SUPERVISED

from solo_ood.data.images import Split, read_splits
from solo_ood.data.rare import POSTER_BASE_RATE
from solo_ood.detection.feats import Feats

TUNED = ("car", "fence", "pole", "sidewalk", "sky", "vegetation", "car+fence", "pole+sidewalk")
FINAL = ("person", "bicycle", "person+bicycle", "sign")  # never used to choose anything
PHASES = ("dev", "final", "final, clips held out")


def read_camvid(root: Path) -> tuple[Split, int]:
    """Return the frames of both splits, and how many of them are to be fitted on."""
    fit, test = (split for split in read_splits(root) if split is not None)
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
            ids = [both.classes.index(class_name) for class_name in definition.split("+")]
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
                    found[name].append([quality(rare[test], draw, 0.2) for draw in scores])
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
