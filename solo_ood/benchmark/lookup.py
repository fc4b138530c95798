"""Look up in the data what the options name: classes, detectors, exemplars, regions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from solo_ood.benchmark.options import MeasureOptions, Rare
from solo_ood.data.images import Split
from solo_ood.data.names import normalise_name
from solo_ood.data.rare import RareDefinition, define
from solo_ood.detection.boxes import Box, read_boxes
from solo_ood.detection.detectors import DETECTORS, Detector, detector
from solo_ood.detection.regions import Regions
from solo_ood.errors import UserError
from solo_ood.replay.rows import rows_by_name


def definitions_of(asked: Rare, fit: Split, test: Split | None) -> list[RareDefinition]:
    """Return what counts as rare, checked against the labels."""
    names = asked.names or (() if fit.by_pixels else ("tail",))
    if not names:
        raise UserError(
            "--rare",
            expected="class names, joined by + where several count as one",
            got="none",
            remedy=f"For instance --rare person+bicycle; there are {', '.join(fit.classes)}.",
        )
    share = (asked.min_share, asked.base_rate, asked.base_rate_of == "each")
    return [define(name, fit, test, *share) for name in dict.fromkeys(map(normalise_name, names))]


def named_detectors(names: Sequence[str]) -> list[Detector]:
    """Return the detectors of these names, each once; ``()``: all that need no patches.

    Raises:
        UserError: for an unknown name.
    """
    if not names:
        return [detector for detector in DETECTORS.values() if not detector.patches]
    return [detector(name) for name in (DETECTORS if "all" in names else dict.fromkeys(names))]


def with_regions(
    chosen: Sequence[Detector], optional: bool, has_regions: bool
) -> tuple[list[Detector], list[str]]:
    """Return the detectors that the data can give, and notes.

    Args:
        chosen: the detectors.
        optional: whether those that need regions may be left out.
        has_regions: whether there are some.

    Raises:
        UserError: if one needs regions, there are none, and it may not be left out.
    """
    if has_regions or not any(detector.regions for detector in chosen):
        return list(chosen), []
    if not optional:
        raise UserError(
            "--detectors",
            expected="masks (BDD100K's layout) or --boxes for exemplars with regions",
            got="images of one label, without boxes",
            remedy="Draw boxes around what matters in the exemplars and give --boxes FILE.csv.",
        )
    return without_regions(chosen, "there are neither masks nor --boxes")


def without_regions(chosen: Sequence[Detector], why: object) -> tuple[list[Detector], list[str]]:
    """Return the detectors that need no regions, and a note of the others."""
    left_out = ", ".join(detector.name for detector in chosen if detector.regions)
    return [detector for detector in chosen if not detector.regions], [
        f"{left_out} left out: {why}"
    ]


def boxes_of(
    options: MeasureOptions, fit: Split, definitions: Sequence[RareDefinition]
) -> dict[Path, list[Box]] | None:
    """Return the boxes that were given, by image."""
    asked = options.detectors
    if asked.boxes is None:
        return None
    if asked.exemplars or len(definitions) > 1:
        raise UserError(
            "--boxes",
            expected="one definition of --rare, whose exemplars they are, and no --exemplars",
            got=f"{len(definitions)} and {len(asked.exemplars)} exemplars",
            remedy="Measure one definition at a time; the images of the boxes are exemplars.",
        )
    return boxes_in(fit, asked.boxes)


def boxes_in(split: Split, path: Path) -> dict[Path, list[Box]]:
    """Return the boxes of a file, whose paths are (ends of) those of ``split``."""

    def image(name: str, what: str) -> Path:
        return split.paths[rows_by_name([name], len(split), split.paths, what)[0]]

    return read_boxes(path, image)


def exemplar_rows(
    given: Sequence[str], boxes: dict[Path, list[Box]] | None, fit: Split
) -> tuple[int, ...] | None:
    """Return the rows of the fit split that indexes and paths name, or that have boxes."""
    if boxes is not None:
        return tuple(row for row, path in enumerate(fit.paths) if path in boxes)
    parsed = [int(text) if text.isdigit() else text for text in given]
    return tuple(rows_by_name(parsed, len(fit), fit.paths, "--exemplars")) or None


def check_regions(
    seen: Sequence[Regions], exemplars: Sequence[int], definitions: Sequence[RareDefinition]
) -> None:
    """Raise ``UserError`` if a network sees nothing of what matters in the exemplars."""
    for regions, definition in product(seen, definitions):
        if not regions.patch_shares(definition, exemplars)[..., 0].any():
            names = ", ".join(regions.split.paths[row].name for row in exemplars[:3])
            raise UserError(
                f"exemplars of {definition.name}",
                expected="what matters in at least one of them, in the middle that the network "
                f"sees ({regions.size[0]} x {regions.size[1]} pixels)",
                got=f"none in {names}",
                remedy="Give images that show it, or leave out exemplar-regions.",
            )
