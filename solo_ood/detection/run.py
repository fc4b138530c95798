"""One measurement from data to report: read, check, embed, score, hand over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from solo_ood.data.images import Split, layout_of
from solo_ood.data.rare import RareDefinition, check_rates, tail_note
from solo_ood.data.survey import cut_note, survey
from solo_ood.detection import table
from solo_ood.detection.detectors import Detector
from solo_ood.detection.feats import Feats, Rows
from solo_ood.detection.measure import Row, measure, score
from solo_ood.detection.options import DEFAULT_SIZES, DetectOptions
from solo_ood.detection.plan import Plan, Task, check
from solo_ood.detection.regions import Box, Regions
from solo_ood.detection.report import Measured, write_page, write_table
from solo_ood.detection.request import (
    boxes_of,
    check_data,
    check_output,
    check_regions,
    definitions_of,
    detectors_of,
    exemplar_rows,
    needs_patches,
    read_data,
)
from solo_ood.embedding.copies import copies_note, equal_note
from solo_ood.embedding.devices import check_devices
from solo_ood.embedding.extract import Embedded, ExtractConfig, common_size, embed
from solo_ood.embedding.networks import make_embedder
from solo_ood.errors import UserError
from solo_ood.text import printable


def detect(options: DetectOptions, show: Callable[[str], None] = print) -> list[Row]:
    """Measure the detectors and write table, pictures and ``report.html`` to ``options.out``.

    Everything that can be checked is checked before anything is embedded. The output folder gets
    the table when all of it is there, then the pictures: one that fails costs nothing but itself.

    Returns:
        the rows of the table; ``[]`` on all processes but the first.

    Raises:
        UserError: for bad data, options, networks or weights.
    """
    check_output(options)
    check_data(options)
    extract = ExtractConfig(
        options.cache,
        options.image_size or DEFAULT_SIZES[layout_of(options.data)],
        options.batch_size,
        options.num_workers,
        options.accelerator,
        options.devices,
        options.num_nodes,
        options.max_unreadable,
    )
    check_devices(extract)
    with_patches = needs_patches(options.detectors)
    # Names and files of the networks before the images are looked at, which may take minutes.
    embedders = [make_embedder(spec, options.stage, with_patches) for spec in options.embedders]
    fit, test, notes = read_data(options)
    definitions = definitions_of(options, fit, test)
    notes += [tail_note(one, fit, test) for one in definitions if one.name == "tail"]
    boxes = boxes_of(options, fit, definitions)
    detectors, left_out = detectors_of(options.detectors, bool(fit.masks or boxes))
    notes += left_out
    first = getattr(rank_zero_only, "rank", 0) == 0
    if notes and first:
        show("\n".join(notes))
    if boxes and not any(one.regions for one in detectors):
        notes.append(
            "--boxes name the exemplars; the boxes themselves are for exemplar-regions only"
        )
    plan = replace(options.plan, exemplars=exemplar_rows(options.exemplars, boxes, fit))
    empty = Feats(np.zeros((len(fit), 1), dtype=np.float32))
    rare = _rare(definitions, fit, test)
    check(Task(empty, None if test is None else empty, rare), plan, detectors)
    root = options.data if options.data.is_dir() else options.data.parent
    kinds = survey(*(split.paths for split in (fit, test) if split is not None))
    notes += kinds.notes
    fit = replace(fit, levels=kinds.levels)
    test = None if test is None else replace(test, levels=kinds.levels)
    sizes = [common_size(kinds.sizes[0], one, extract.image_size) for one in embedders]
    for size, (what, group) in product(dict.fromkeys(sizes), zip(("fit", "test"), kinds.sizes)):
        notes += [f"{what}: {note}" for note in cut_note(group, size)]
    if plan.exemplars and any(one.regions for one in detectors):
        seen = [Regions(fit, size, (1, 1), boxes) for size in dict.fromkeys(sizes)]
        try:
            check_regions(seen, plan.exemplars, definitions)
        except ValueError as error:
            if "all" not in options.detectors:
                raise
            detectors = [one for one in detectors if not one.regions]
            notes.append(f"exemplar-regions left out: {error}")
    embedded = []
    for one, size in zip(embedders, sizes):
        fit_feats = embed(fit, one, extract, root, "fit", size)
        test_feats = None if test is None else embed(test, one, extract, root, "test", size)
        for definition in definitions:  # what could not be read may have been all that is rare
            check_rates(definition, fit_feats.split, test_feats.split if test_feats else None)
        embedded.append((fit_feats, test_feats))
    if not first:
        return []

    results = []
    for name, one, (fit_feats, test_feats) in zip(
        _distinct([one.name for one in embedders]), embedders, embedded
    ):
        show(printable(f"scoring {name}"))
        task = task_of(fit_feats, test_feats, definitions, boxes)
        result = _measure(name, task, fit_feats, test_feats, fit, plan, detectors, show)
        results.append(result)
        notes += [f"{name}: {one.note}", *_left_out(result.fit, f"fit, {name}")]
        notes += _left_out(result.test, f"test, {name}") if test_feats else []
        notes += [f"fit, {name}: {note}" for note in equal_note(result.task.fit.pooled)]
        if test_feats:
            copies = copies_note(result.task.fit.pooled, test_feats.pooled)
            notes += [f"test, {name}: {note}" for note in copies]
        skipped = [n for n in plan.sizes if n is not None and n > len(result.fit)]
        notes += [f"N = {n} left out: the fit split has {len(result.fit)}" for n in skipped]
    notes = list(dict.fromkeys(notes))
    rows = [row for result in results for row in result.rows]
    rows += [row for result in results for row in table.mean_rows(result.rows)]
    options = replace(options, plan=plan)
    write_table(options, rows, notes, definitions)
    show("\n".join([table.terminal(rows), *map(printable, notes)]))  # whatever pictures may do
    failed = write_page(options, results, rows, notes, definitions)
    show("\n".join([*failed, printable(f"report: {options.out / 'report.html'}")]))
    return rows


def task_of(
    fit: Embedded,
    test: Embedded | None,
    definitions: Sequence[RareDefinition],
    boxes: dict[Path, list[Box]] | None,
) -> Task:
    """Return what is measured with one network."""
    rare = _rare(definitions, fit.split, test.split if test else None)
    regions = None
    if fit.patches is not None:
        regions = Regions(fit.split, fit.size, fit.patches.shape[1:3], boxes).of
    return Task(_feats(fit), _feats(test) if test else None, rare, regions)


def _measure(
    name: str,
    task: Task,
    fit: Embedded,
    test: Embedded | None,
    asked: Split,
    plan: Plan,
    detectors: Sequence[Detector],
    show: Callable[[str], None],
) -> Measured:
    """Return the results with one network; ``asked`` is the fit split with all its images."""
    kept = {path: row for row, path in enumerate(fit.split.paths)}
    if plan.exemplars is not None:
        gone = [asked.paths[row].name for row in plan.exemplars if asked.paths[row] not in kept]
        if gone:
            raise UserError(
                "exemplars",
                expected="images that can be embedded",
                got=f"{gone[0]}, which could not",
                remedy="Repair the file, or leave it out of --exemplars (--boxes).",
            )
        plan = replace(plan, exemplars=tuple(kept[asked.paths[row]] for row in plan.exemplars))
    plan = check(task, plan, detectors)
    scores = score(task, detectors, plan, show)
    measured = [
        row
        for definition, collected in scores.items()
        for one in collected
        for row in measure(one, task.rare[definition][1], plan, name, definition.name)
    ]
    return Measured(name, fit.size, plan, task, fit.split, (test or fit).split, scores, measured)


def _rare(
    definitions: Sequence[RareDefinition], fit: Split, test: Split | None
) -> dict[RareDefinition, tuple[np.ndarray, np.ndarray]]:
    return {d: (d.of(fit), d.of(fit) if test is None else d.of(test, True)) for d in definitions}


def _feats(embedded: Embedded) -> Feats:
    patches = None if embedded.patches is None else Rows(embedded.patches, embedded.rows)
    return Feats(embedded.pooled, patches)


def _left_out(split: Split, what: str) -> list[str]:
    notes = []
    for reason, names in split.left_out.items():
        shown = [*names[:3], "…"] if len(names) > 3 else names
        notes.append(f"{what}: {len(names)} left out, {reason} ({', '.join(shown)})")
    return notes


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names without their weights where that tells them apart, else numbered."""
    short = [name.partition(":")[0] for name in names]
    if len(set(short)) == len(short):
        return short
    again = [names[:number].count(name) for number, name in enumerate(names)]
    return [f"{name} ({n + 1})" if n else name for name, n in zip(names, again)]
