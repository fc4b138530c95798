"""What was asked for, checked against the data before any work."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from solo_ood.data.images import Split, layout_of, long_tailed, read_splits
from solo_ood.data.names import clean
from solo_ood.data.rare import RareDefinition, define
from solo_ood.detection import table
from solo_ood.detection.detectors import DETECTORS, Detector, detector
from solo_ood.detection.options import DetectOptions
from solo_ood.detection.pictures import check_projection
from solo_ood.detection.regions import Box, Regions, read_boxes
from solo_ood.errors import UserError
from solo_ood.exemplars import rows_of
from solo_ood.output import check_writable


def check_output(options: DetectOptions) -> None:
    """Raise ``UserError`` for what would fail only after the work."""
    check_writable(options.out, "--out", "report.html", *table.FILES)
    check_projection(options.projection)


def check_data(options: DetectOptions) -> None:
    """Raise ``UserError`` if there are no data, without reading them."""
    if not options.data.exists():
        raise UserError(
            "data",
            expected="a folder or a .csv",
            got=f"no file or folder {options.data}",
            remedy=f"Check its spelling; relative paths count from {Path.cwd()}.",
        )
    layout_of(options.data)


def read_data(options: DetectOptions) -> tuple[Split, Split | None, list[str]]:
    """Return the two splits and what a reader should know of them."""
    fit, test = read_splits(options.data, options.max_unreadable, options.cross_fit)
    notes = list(fit.notes)
    out = options.out.resolve()
    if layout_of(options.data) == "folder" and any(
        path.parent.resolve() == out for path in fit.paths
    ):
        raise UserError(
            "--out",
            expected="a folder of its own",
            got=f"{options.out}, which holds images of the data",
            remedy="Give --out a folder beside the data: one with a report counts as none of them.",
        )
    if options.imbalance is not None:
        if fit.by_pixels:
            raise UserError(
                "--imbalance",
                expected="images of one label each",
                got="masks",
                remedy="Leave --imbalance out: it draws images of each class folder.",
            )
        fit, order = long_tailed(fit, options.imbalance, options.class_order)
        notes.append(f"classes from frequent to rare: {', '.join(order)}")
        test = long_tailed(test, options.imbalance, options.class_order)[0] if test else None
    for split, name in ((fit, "fit split"), (test, "test split")):
        if split is not None and not len(split):
            raise UserError(
                name,
                expected="images",
                got=f"none in {options.data}",
                remedy="Put images there, or give the folder that holds them.",
            )
    if not options.rare and not fit.by_pixels:
        notes.append(
            "--rare was not given: assumed tail, the third of the classes with the fewest images"
        )
    if test is None:
        notes.append("no test split: every image is scored by a detector that has not seen it")
    return fit, test, notes


def definitions_of(options: DetectOptions, fit: Split, test: Split | None) -> list[RareDefinition]:
    """Return what counts as rare, checked against the labels."""
    names = options.rare or (() if fit.by_pixels else ("tail",))
    if not names:
        raise UserError(
            "--rare",
            expected="class names, joined by + where several count as one",
            got="none",
            remedy=f"For instance --rare person+bicycle; there are {', '.join(fit.classes)}.",
        )
    share = (options.min_share, options.base_rate, options.each_split)
    return [define(name, fit, test, *share) for name in dict.fromkeys(map(clean, names))]


def needs_patches(names: Sequence[str]) -> bool:
    """Whether one of the detectors that were asked for looks at patches.

    Raises:
        UserError: for an unknown name.
    """
    return any(detector(name).patches for name in (DETECTORS if "all" in names else names))


def detectors_of(names: Sequence[str], has_regions: bool) -> tuple[list[Detector], list[str]]:
    """Return the detectors that were asked for, and notes; ``all``: those the data can give.

    Raises:
        UserError: for an unknown name, or one that needs regions where there are none.
    """
    every = "all" in names
    chosen = [detector(name) for name in (DETECTORS if every else dict.fromkeys(names))]
    if has_regions or not any(one.regions for one in chosen):
        return chosen, []
    if not every:
        raise UserError(
            "--detectors",
            expected="masks (BDD100K's layout) or --boxes for exemplars with regions",
            got="images of one label, without boxes",
            remedy="Draw boxes around what matters in the exemplars and give --boxes FILE.csv.",
        )
    notes = ["exemplar-regions left out: there are neither masks nor --boxes"]
    return [one for one in chosen if not one.regions], notes


def boxes_of(
    options: DetectOptions, fit: Split, definitions: Sequence[RareDefinition]
) -> dict[Path, list[Box]] | None:
    """Return the boxes that were given, by image."""
    if options.boxes is None:
        return None
    if options.exemplars or len(definitions) > 1:
        raise UserError(
            "--boxes",
            expected="one definition of --rare, whose exemplars they are, and no --exemplars",
            got=f"{len(definitions)} and {len(options.exemplars)} exemplars",
            remedy="Measure one definition at a time; the images of the boxes are exemplars.",
        )
    return read_boxes(options.boxes, fit)


def exemplar_rows(
    given: Sequence[str], boxes: dict[Path, list[Box]] | None, fit: Split
) -> tuple[int, ...] | None:
    """Return the rows of the fit split that indexes and paths name, or that have boxes."""
    if boxes is not None:
        return tuple(row for row, path in enumerate(fit.paths) if path in boxes)
    parsed = [int(text) if text.isdigit() else text for text in given]
    return tuple(rows_of(parsed, len(fit), fit.paths, "--exemplars")) or None


def check_regions(
    seen: Sequence[Regions], exemplars: Sequence[int], definitions: Sequence[RareDefinition]
) -> None:
    """Raise ``UserError`` if a network sees nothing of what matters in the exemplars."""
    for regions, definition in product(seen, definitions):
        if not regions.of(definition, exemplars)[..., 0].any():
            names = ", ".join(regions.split.paths[row].name for row in exemplars[:3])
            raise UserError(
                f"exemplars of {definition.name}",
                expected="what matters in at least one of them, in the middle that the network "
                f"sees ({regions.size[0]} x {regions.size[1]} pixels)",
                got=f"none in {names}",
                remedy="Give images that show it, or leave out exemplar-regions.",
            )
