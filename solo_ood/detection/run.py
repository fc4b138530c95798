"""One measurement from data to report: read, check, embed, score, hand over."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from solo_ood.data.images import Split, layout_of, long_tailed, read_splits
from solo_ood.data.rare import RareDefinition, define
from solo_ood.detection import table
from solo_ood.detection.detectors import DETECTORS, Detector, Feats, Rows, detector
from solo_ood.detection.measure import Plan, Row, Task, check, measure, score
from solo_ood.detection.options import DEFAULT_SIZES, DetectOptions
from solo_ood.detection.pictures import check_projection
from solo_ood.detection.regions import Box, Regions, read_boxes
from solo_ood.detection.report import Measured, write
from solo_ood.embedding.extract import Embedded, ExtractConfig, common_size, embed
from solo_ood.embedding.networks import make_embedder
from solo_ood.errors import message
from solo_ood.exemplars import rows_of


def detect(options: DetectOptions, show: Callable[[str], None] = print) -> list[Row]:
    """Measure the detectors and write table, pictures and ``report.html`` to ``options.out``.

    Everything that can be checked is checked before anything is embedded, and the output folder is
    filled only when all of it is there.

    Returns:
        the rows of the table; ``[]`` on all processes but the first.

    Raises:
        ValueError: for bad data, options, networks or weights.
    """
    _check_output(options)
    fit, test, notes = _read(options)
    definitions = _definitions(options, fit, test)
    boxes = _boxes(options, fit, definitions)
    detectors, left_out = _detectors(options.detectors, bool(fit.masks or boxes))
    notes += left_out
    if boxes and not any(one.regions for one in detectors):
        notes.append(
            "--boxes name the exemplars; the boxes themselves are for exemplar-regions only"
        )
    plan = replace(options.plan, exemplars=_exemplar_rows(options.exemplars, boxes, fit))
    empty = Feats(np.zeros((len(fit), 1), dtype=np.float32))
    rare = _rare(definitions, fit, test)
    check(Task(empty, None if test is None else empty, rare), plan, detectors)
    with_patches = any(one.patches for one in detectors)
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
    root = options.data if options.data.is_dir() else options.data.parent
    embedders = [make_embedder(spec, options.stage, with_patches) for spec in options.embedders]
    sizes = [common_size(fit, one, extract.image_size) for one in embedders]
    if plan.exemplars and any(one.regions for one in detectors):
        seen = [Regions(fit, size, (1, 1), boxes) for size in dict.fromkeys(sizes)]
        try:
            _check_regions(seen, plan.exemplars, definitions)
        except ValueError as error:
            if "all" not in options.detectors:
                raise
            detectors = [one for one in detectors if not one.regions]
            notes.append(f"exemplar-regions left out: {error}")
    embedded = []
    for one, size in zip(embedders, sizes):
        fit_feats = embed(fit, one, extract, root, "fit", size)
        test_feats = None if test is None else embed(test, one, extract, root, "test", size)
        embedded.append((fit_feats, test_feats))
    if getattr(rank_zero_only, "rank", 0) != 0:
        return []

    results = []
    for name, one, (fit_feats, test_feats) in zip(
        _distinct([one.name for one in embedders]), embedders, embedded
    ):
        show(f"scoring {name}")
        task = task_of(fit_feats, test_feats, definitions, boxes)
        result = _measure(name, task, fit_feats, test_feats, fit, plan, detectors, show)
        results.append(result)
        notes += [f"{name}: {one.note}", *_left_out(result.fit, f"fit, {name}")]
        notes += _left_out(result.test, f"test, {name}") if test_feats else []
        skipped = [n for n in plan.sizes if n is not None and n > len(result.fit)]
        notes += [f"N = {n} left out: the fit split has {len(result.fit)}" for n in skipped]
    notes = list(dict.fromkeys(notes))
    rows = [row for result in results for row in result.rows]
    rows += [row for result in results for row in table.mean_rows(result.rows)]
    write(replace(options, plan=plan), results, rows, notes, definitions)
    show("\n".join([table.terminal(rows), *notes, f"report: {options.out / 'report.html'}"]))
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
            raise ValueError(
                message(
                    "exemplars",
                    expected="images that can be embedded",
                    got=f"{gone[0]}, which could not",
                    remedy="Name another one.",
                )
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


def _check_output(options: DetectOptions) -> None:
    """Raise ``ValueError`` for what would fail only after the work."""
    folder = next(path for path in (options.out, *options.out.absolute().parents) if path.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(
            message(
                "--out",
                expected="a folder that can be written",
                got=options.out,
                remedy="Name another one.",
            )
        )
    check_projection(options.projection)


def _read(options: DetectOptions) -> tuple[Split, Split | None, list[str]]:
    """Return the two splits and what a reader should know of them."""
    if not options.data.exists():
        raise ValueError(
            message("--data", expected="a folder or a .csv", got=options.data, remedy="Look again.")
        )
    fit, test = read_splits(options.data, options.max_unreadable)
    notes = []
    if options.imbalance is not None:
        if fit.by_pixels:
            raise ValueError(
                message(
                    "--imbalance",
                    expected="images of one label each",
                    got="masks",
                    remedy="Leave it out.",
                )
            )
        fit, order = long_tailed(fit, options.imbalance, options.class_order)
        notes.append(f"classes from frequent to rare: {', '.join(order)}")
        test = long_tailed(test, options.imbalance, options.class_order)[0] if test else None
    if options.cross_fit:
        test = None
    for split, name in ((fit, "fit split"), (test, "test split")):
        if split is not None and not len(split):
            raise ValueError(
                message(name, expected="images", got="none", remedy="Look at the data.")
            )
    if test is None:
        notes.append("no test split: every image is scored by a detector that has not seen it")
    return fit, test, notes


def _detectors(names: Sequence[str], has_regions: bool) -> tuple[list[Detector], list[str]]:
    """Return the detectors that were asked for, and notes; ``all``: those the data can give.

    Raises:
        ValueError: for an unknown name, or one that needs regions where there are none.
    """
    every = "all" in names
    chosen = [detector(name) for name in (DETECTORS if every else dict.fromkeys(names))]
    if has_regions or not any(one.regions for one in chosen):
        return chosen, []
    if not every:
        raise ValueError(
            message(
                "--detectors",
                expected="masks (BDD100K's layout) or --boxes for exemplars with regions",
                got="images of one label, without boxes",
                remedy="Draw boxes around what matters in the exemplars and give --boxes FILE.csv.",
            )
        )
    notes = ["exemplar-regions left out: there are neither masks nor --boxes"]
    return [one for one in chosen if not one.regions], notes


def _check_regions(
    seen: Sequence[Regions], exemplars: Sequence[int], definitions: Sequence[RareDefinition]
) -> None:
    """Raise ``ValueError`` if a network sees nothing of what matters in the exemplars."""
    for regions, definition in product(seen, definitions):
        if not regions.of(definition, exemplars)[..., 0].any():
            names = ", ".join(regions.split.paths[row].name for row in exemplars[:3])
            raise ValueError(
                message(
                    f"exemplars of {definition.name}",
                    expected="what matters in at least one of them, in the middle that the network "
                    f"sees ({regions.size[0]} x {regions.size[1]} pixels)",
                    got=f"none in {names}",
                    remedy="Give images that show it, or leave out exemplar-regions.",
                )
            )


def _boxes(
    options: DetectOptions, fit: Split, definitions: Sequence[RareDefinition]
) -> dict[Path, list[Box]] | None:
    """Return the boxes that were given, by image."""
    if options.boxes is None:
        return None
    if options.exemplars or len(definitions) > 1:
        raise ValueError(
            message(
                "--boxes",
                expected="one definition of --rare, whose exemplars they are, and no --exemplars",
                got=f"{len(definitions)} and {len(options.exemplars)} exemplars",
                remedy="Measure one definition at a time; the images of the boxes are exemplars.",
            )
        )
    return read_boxes(options.boxes, fit)


def _definitions(options: DetectOptions, fit: Split, test: Split | None) -> list[RareDefinition]:
    names = options.rare or (() if fit.by_pixels else ("tail",))
    if not names:
        raise ValueError(
            message(
                "--rare",
                expected="class names, joined by + where several count as one",
                got="none",
                remedy=f"For instance --rare person+bicycle; there are {', '.join(fit.classes)}.",
            )
        )
    share = (options.min_share, options.base_rate, options.each_split)
    return [define(name, fit, test, *share) for name in dict.fromkeys(names)]


def _rare(
    definitions: Sequence[RareDefinition], fit: Split, test: Split | None
) -> dict[RareDefinition, tuple[np.ndarray, np.ndarray]]:
    return {d: (d.of(fit), d.of(fit) if test is None else d.of(test, True)) for d in definitions}


def _exemplar_rows(
    given: Sequence[str], boxes: dict[Path, list[Box]] | None, fit: Split
) -> tuple[int, ...] | None:
    """Return the rows of the fit split that indexes and paths name, or that have boxes."""
    if boxes is not None:
        return tuple(row for row, path in enumerate(fit.paths) if path in boxes)
    parsed = [int(text) if text.isdigit() else text for text in given]
    return tuple(rows_of(parsed, len(fit), fit.paths, "--exemplars")) or None


def _feats(embedded: Embedded) -> Feats:
    patches = None if embedded.patches is None else Rows(embedded.patches, embedded.rows)
    return Feats(embedded.pooled, patches)


def _left_out(split: Split, what: str) -> list[str]:
    return [
        f"{what}: {len(names)} left out, {reason} ({', '.join(names[:3])}, …)"
        for reason, names in split.left_out.items()
    ]


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names without their weights where that tells them apart, else numbered."""
    short = [name.partition(":")[0] for name in names]
    if len(set(short)) == len(short):
        return short
    again = [names[:number].count(name) for number, name in enumerate(names)]
    return [f"{name} ({n + 1})" if n else name for name, n in zip(names, again)]
