"""A measurement that can be done: what was asked for, checked against the data before any work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from solo_ood.benchmark import table
from solo_ood.benchmark.charts import check_projection
from solo_ood.benchmark.lookup import (
    boxes_of,
    check_regions,
    definitions_of,
    exemplar_rows,
    named_detectors,
    with_regions,
    without_regions,
)
from solo_ood.benchmark.options import Data, MeasureOptions
from solo_ood.benchmark.plan import Plan, Task, check, rare_images
from solo_ood.data.images import Split, layout_of, long_tailed, read_splits
from solo_ood.data.rare import RareDefinition, tail_note
from solo_ood.data.survey import cut_note, survey
from solo_ood.detection.boxes import Box
from solo_ood.detection.detectors import Detector
from solo_ood.detection.feats import Feats
from solo_ood.detection.regions import Regions
from solo_ood.embedding.devices import check_devices, is_first_process
from solo_ood.embedding.embedder import Embedder
from solo_ood.embedding.extract import common_size
from solo_ood.embedding.networks import make_embedder
from solo_ood.embedding.options import SIDE
from solo_ood.errors import UserError
from solo_ood.files.output import check_writable
from solo_ood.files.text import printable
from solo_ood.options.field import check as check_options

DRIVING_SIDE = 512  # pixels: on driving frames what matters is small


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
        options: with the exemplars' rows in its plan, and the size of the images.
        fit: the split that detectors learn from.
        test: the other; ``None`` = every image is tested by a detector that has not seen it.
        definitions: of rare.
        boxes: around what matters in exemplars, by image.
        detectors: those that the data can give.
        embedders: the networks.
        sizes: H and W (pixels) for each network.
        notes: what a reader should know.
    """

    options: MeasureOptions
    fit: Split
    test: Split | None
    definitions: list[RareDefinition]
    boxes: dict[Path, list[Box]] | None
    detectors: list[Detector]
    embedders: list[Embedder]
    sizes: list[tuple[int, int]]
    notes: list[str]

    @property
    def plan(self) -> Plan:
        """How it is measured."""
        return self.options.plan


def read_request(options: MeasureOptions, show: Callable[[str], None]) -> Request:
    """Read the data and check all that can be checked before anything is embedded.

    Raises:
        UserError: for bad data, options, networks or weights.
    """
    check_options(options)
    check_writable(options.output.folder, "--out", "report.html", *table.FILES)
    check_projection(options.output.projection)
    check_data(options.data.path)
    options = _sized(options)
    check_devices(options.embedding)
    detectors = named_detectors(options.detectors.names)
    # Names and files of the networks before the images are looked at, which may take minutes.
    with_patches = any(detector.patches for detector in detectors)
    embedders = [
        make_embedder(spec, options.networks.stage, with_patches) for spec in options.networks.specs
    ]
    fit, test, notes = read_data(options)
    definitions = definitions_of(options.rare, fit, test)
    notes += [
        tail_note(definition, fit, test) for definition in definitions if definition.name == "tail"
    ]
    boxes = boxes_of(options, fit, definitions)
    optional = "all" in options.detectors.names
    detectors, left_out = with_regions(detectors, optional, bool(fit.masks or boxes))
    notes += left_out
    if notes and is_first_process():
        show("\n".join(map(printable, notes)))
    if boxes and not any(detector.regions for detector in detectors):
        notes.append(
            "--boxes name the exemplars; the boxes themselves are for exemplar-regions only"
        )
    exemplars = exemplar_rows(options.detectors.exemplars, boxes, fit)
    percentiles = tuple(sorted(set(options.plan.percentiles), reverse=True))
    plan = replace(options.plan, exemplars=exemplars, percentiles=percentiles)
    options = replace(options, plan=plan)
    _check_plan(plan, fit, test, definitions, detectors)
    fit, test, sizes, seen_notes = _looked_at(options, fit, test, embedders)
    notes += seen_notes
    if plan.exemplars and any(detector.regions for detector in detectors):
        regions = [Regions(fit, size, (1, 1), boxes) for size in dict.fromkeys(sizes)]
        try:
            check_regions(regions, plan.exemplars, definitions)
        except ValueError as error:
            if not optional:
                raise
            detectors, left_out = without_regions(detectors, error)
            notes += left_out
    return Request(options, fit, test, definitions, boxes, detectors, embedders, sizes, notes)


def check_data(path: Path) -> None:
    """Raise ``UserError`` if there are no data, without reading them."""
    if not path.exists():
        raise UserError(
            "data",
            expected="a folder or a .csv",
            got=f"no file or folder {path}",
            remedy=f"Check its spelling; relative paths count from {Path.cwd()}.",
        )
    layout_of(path)


def read_data(options: MeasureOptions) -> tuple[Split, Split | None, list[str]]:
    """Return the two splits and what a reader should know of them."""
    data = options.data
    fit, test = read_splits(data.path, options.embedding.max_unreadable, data.cross_fit)
    notes = list(fit.notes)
    out = options.output.folder.resolve()
    if layout_of(data.path) == "folder" and any(path.parent.resolve() == out for path in fit.paths):
        raise UserError(
            "--out",
            expected="a folder of its own",
            got=f"{options.output.folder}, which holds images of the data",
            remedy="Give --out a folder beside the data: one with a report counts as none of them.",
        )
    if data.imbalance is not None:
        fit, test, tail_notes = _long_tailed(data, data.imbalance, fit, test)
        notes += tail_notes
    for split, name in ((fit, "fit split"), (test, "test split")):
        if split is not None and not len(split):
            raise UserError(
                name,
                expected="images",
                got=f"none in {data.path}",
                remedy="Put images there, or give the folder that holds them.",
            )
    if not options.rare.names and not fit.by_pixels:
        notes.append(
            "--rare was not given: assumed tail, the third of the classes with the fewest images"
        )
    if test is None:
        notes.append("no test split: every image is scored by a detector that has not seen it")
    return fit, test, notes


def _long_tailed(
    data: Data, imbalance: float, fit: Split, test: Split | None
) -> tuple[Split, Split | None, list[str]]:
    if fit.by_pixels:
        raise UserError(
            "--imbalance",
            expected="images of one label each",
            got="masks",
            remedy="Leave --imbalance out: it draws images of each class folder.",
        )
    fit, order = long_tailed(fit, imbalance, data.class_order)
    notes = [f"classes from frequent to rare: {', '.join(order)}"]
    return fit, long_tailed(test, imbalance, data.class_order)[0] if test else None, notes


def _sized(options: MeasureOptions) -> MeasureOptions:
    """Return the options with the size of the images, where none was given."""
    usual = DRIVING_SIDE if layout_of(options.data.path) == "bdd" else SIDE
    side = options.embedding.image_size or usual
    return replace(options, embedding=replace(options.embedding, image_size=side))


def _check_plan(
    plan: Plan,
    fit: Split,
    test: Split | None,
    definitions: Sequence[RareDefinition],
    detectors: Sequence[Detector],
) -> None:
    """Raise ``UserError`` for a plan that the labels cannot give."""
    empty = Feats(np.zeros((len(fit), 1), dtype=np.float32))
    rare = rare_images(definitions, fit, test)
    check(Task(empty, None if test is None else empty, rare), plan, detectors)


def _looked_at(
    options: MeasureOptions, fit: Split, test: Split | None, embedders: Sequence[Embedder]
) -> tuple[Split, Split | None, list[tuple[int, int]], list[str]]:
    """Return the splits with black and white, the size for each network, and notes."""
    kinds = survey(*(split.paths for split in (fit, test) if split is not None))
    fit = replace(fit, levels=kinds.levels)
    test = None if test is None else replace(test, levels=kinds.levels)
    side = options.embedding.image_size or SIDE
    sizes = [common_size(kinds.sizes[0], embedder, side) for embedder in embedders]
    notes = list(kinds.notes)
    for size, (what, group) in product(dict.fromkeys(sizes), zip(("fit", "test"), kinds.sizes)):
        notes += [f"{what}: {note}" for note in cut_note(group, size)]
    return fit, test, sizes, notes
