"""Embed the splits of a request by each of its networks, and score what was embedded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from solo_ood.benchmark.measure import Scores, TableRow, measure, score
from solo_ood.benchmark.plan import Plan, Task, check, rare_images
from solo_ood.benchmark.request import Request
from solo_ood.data.images import Split
from solo_ood.data.rare import RareDefinition, check_rates
from solo_ood.detection.boxes import Box
from solo_ood.detection.feats import feats_of
from solo_ood.detection.regions import Regions
from solo_ood.embedding.copies import copies_note, equal_note
from solo_ood.embedding.embedder import Embedder
from solo_ood.embedding.extract import Embedded, embed
from solo_ood.errors import UserError
from solo_ood.files.text import printable


@dataclass(frozen=True)
class EmbeddedSplits:
    """The splits as one network sees them.

    Attributes:
        test: ``None`` if there is no test split.
    """

    embedder: Embedder
    fit: Embedded
    test: Embedded | None


@dataclass(frozen=True)
class Measured:
    """The results with one network.

    Attributes:
        size: H and W (pixels) to which the images were scaled and cut.
        plan: with the exemplars' rows among the images that could be embedded.
        notes: what a reader should know.
    """

    name: str
    size: tuple[int, int]
    plan: Plan
    task: Task
    fit: Split
    test: Split
    scores: dict[RareDefinition, list[Scores]]
    rows: list[TableRow]
    notes: list[str]

    @property
    def test_feats(self) -> np.ndarray:
        return (self.task.test or self.task.fit).pooled


def embed_splits(request: Request) -> list[EmbeddedSplits]:
    """Return the features of both splits by each network.

    Raises:
        UserError: if too many images cannot be read, or all that is rare is among them.
    """
    data, cfg = request.options.data.path, request.options.embedding
    root = data if data.is_dir() else data.parent
    pairs = []
    for embedder, size in zip(request.embedders, request.sizes):
        fit = embed(request.fit, embedder, cfg, root, "fit", size)
        test = None
        if request.test is not None:
            test = embed(request.test, embedder, cfg, root, "test", size)
        for definition in request.definitions:
            check_rates(definition, fit.split, test.split if test else None)
        pairs.append(EmbeddedSplits(embedder, fit, test))
    return pairs


def score_pairs(
    request: Request, pairs: Sequence[EmbeddedSplits], show: Callable[[str], None]
) -> list[Measured]:
    """Return the results of all detectors with each network.

    Raises:
        UserError: if what could be embedded is too little for the plan.
    """
    names = _distinct([pair.embedder.name for pair in pairs])
    results = []
    for name, pair in zip(names, pairs):
        show(printable(f"scoring {name}"))
        task = task_of(pair.fit, pair.test, request.definitions, request.boxes)
        plan = check(task, _with_embedded_exemplars(request, pair.fit.split), request.detectors)
        scores = score(task, request.detectors, plan, show)
        rows = [
            row
            for definition, collected in scores.items()
            for detected in collected
            for row in measure(detected, task.rare[definition][1], plan, name, definition.name)
        ]
        fit, test = pair.fit.split, (pair.test or pair.fit).split
        notes = _notes(name, request, pair, task)
        results.append(Measured(name, pair.fit.size, plan, task, fit, test, scores, rows, notes))
    return results


def task_of(
    fit: Embedded,
    test: Embedded | None,
    definitions: Sequence[RareDefinition],
    boxes: dict[Path, list[Box]] | None,
) -> Task:
    """Return what is measured with one network."""
    rare = rare_images(definitions, fit.split, test.split if test else None)
    regions = None
    if fit.patches is not None:
        regions = Regions(fit.split, fit.size, fit.patches.shape[1:3], boxes).patch_shares
    return Task(feats_of(fit), feats_of(test) if test else None, rare, regions)


def _with_embedded_exemplars(request: Request, fit: Split) -> Plan:
    """Return the plan with the exemplars' rows in ``fit``, the images that could be embedded."""
    plan = request.plan
    if plan.exemplars is None:
        return plan
    kept = {path: row for row, path in enumerate(fit.paths)}
    asked = [request.fit.paths[row] for row in plan.exemplars]
    gone = [path.name for path in asked if path not in kept]
    if gone:
        raise UserError(
            "exemplars",
            expected="images that can be embedded",
            got=f"{gone[0]}, which could not",
            remedy="Repair the file, or leave it out of --exemplars (--boxes).",
        )
    return replace(plan, exemplars=tuple(kept[path] for path in asked))


def _notes(name: str, request: Request, pair: EmbeddedSplits, task: Task) -> list[str]:
    """Return notes on the results with one network."""
    fit = pair.fit.split
    notes = [f"{name}: {pair.embedder.note}", *fit.left_out_notes(f"fit, {name}")]
    notes += pair.test.split.left_out_notes(f"test, {name}") if pair.test else []
    notes += [f"fit, {name}: {note}" for note in equal_note(task.fit.pooled)]
    if pair.test:
        copies = copies_note(task.fit.pooled, pair.test.pooled)
        notes += [f"test, {name}: {note}" for note in copies]
    skipped = [n for n in request.plan.sizes if n is not None and n > len(fit)]
    return notes + [f"N = {n} left out: the fit split has {len(fit)}" for n in skipped]


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names without their weights where that tells them apart, else numbered."""
    short = [name.partition(":")[0] for name in names]
    if len(set(short)) == len(short):
        return short
    again = [names[:number].count(name) for number, name in enumerate(names)]
    return [f"{name} ({n + 1})" if n else name for name, n in zip(names, again)]
