"""The files of a measurement: table, pictures, and one page that shows all of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from solo_ood import atomic, plots
from solo_ood.data.images import Split
from solo_ood.data.rare import RareDefinition
from solo_ood.detection import pictures, table
from solo_ood.detection.detectors import DETECTORS
from solo_ood.detection.measure import Row, Scores, draws
from solo_ood.detection.options import MeasureOptions
from solo_ood.detection.page import Page
from solo_ood.detection.request import Request
from solo_ood.detection.scoring import Measured
from solo_ood.detection.segmentation import region_maps
from solo_ood.text import printable


def report(request: Request, results: Sequence[Measured], show: Callable[[str], None]) -> list[Row]:
    """Write the table, then the pictures and the page; return the rows of the table.

    A picture that fails costs nothing but itself.
    """
    notes = list(dict.fromkeys([*request.notes, *(note for one in results for note in one.notes)]))
    rows = [row for result in results for row in result.rows]
    rows += [row for result in results for row in table.mean_rows(result.rows)]
    options, definitions = request.options, request.definitions
    write_table(options, rows, notes, definitions)
    show("\n".join([table.terminal(rows), *map(printable, notes)]))  # whatever pictures may do
    failed = write_page(options, results, rows, notes, definitions)
    page = options.output.folder / "report.html"
    show("\n".join([*failed, printable(f"report: {page}")]))
    return rows


def write_table(
    options: MeasureOptions,
    rows: list[Row],
    notes: list[str],
    definitions: Sequence[RareDefinition],
) -> None:
    """Write the table in all its forms."""
    facts = {
        "command": printable(options.command),
        "notes": [printable(note) for note in notes],
        "rare": [asdict(replace(one, name=printable(one.name))) for one in definitions],
        "plan": asdict(options.plan),
    }
    with atomic.files_of(options.output.folder) as folder:
        table.write(rows, folder, facts)


def write_page(
    options: MeasureOptions,
    results: Sequence[Measured],
    rows: list[Row],
    notes: list[str],
    definitions: Sequence[RareDefinition],
) -> list[str]:
    """Write the pictures and the page that shows all; return what could not be drawn."""
    with atomic.files_of(options.output.folder) as folder:
        return _draw(options, results, rows, notes, definitions, folder)


def _draw(
    options: MeasureOptions,
    results: Sequence[Measured],
    rows: list[Row],
    notes: list[str],
    definitions: Sequence[RareDefinition],
    out: Path,
) -> list[str]:
    page = Page(f"Detectors of rare images on {options.data.path.name}")
    first = results[0]
    page.text(
        "Higher score = rarer; an image is flagged if its score is above a threshold that was set "
        "on scores of images which the detector had not seen. Lift is precision / base rate: a "
        "random detector has 1. Top lift is that of the images with the highest scores, without a "
        "threshold. Values are means over the repeats; [intervals] hold 95 % of single repeats on "
        "resampled test images."
    )
    if options.command:
        page.code(options.command)
    page.listing([f"{len(first.fit)} images to fit on, {len(first.test)} to test on", *notes])

    failed: list[str] = []

    def add(make: Callable[[], Figure], name: str, caption: str) -> None:
        problem = plots.why_not_saved(make, out / name)
        if problem is None:
            page.picture(out / name, caption)
        else:
            page.text(problem)
            failed.append(problem)

    for number, definition in enumerate(definitions, 1):
        page.heading(f"Rare: {definition.name}")
        rare = first.task.rare[definition][1]
        limit = f", more than {definition.test_min_share:.2%} of the pixels" * first.fit.by_pixels
        page.text(f"{rare.sum()} of {len(rare)} test images are rare{limit}.")
        mine = [row for row in rows if row.definition == definition.name]
        page.table(table.markdown(mine))
        suffix = f"-{number}-{_slug(definition.name)}"
        feats = {result.name: result.test_feats for result in results}
        if len({len(rows_) for rows_ in feats.values()}) > 1:  # a network failed on some images
            feats = {first.name: first.test_feats}
        output = options.output
        how, images = output.projection, first.test.paths if output.thumbnails else ()
        levels = first.test.levels
        make: Callable[[], Figure] = partial(
            pictures.scatter, feats, rare, how, f"{how} of the test images", images, levels=levels
        )
        add(make, f"embeddings{suffix}.png", "Embeddings of the test images; red: rare")
        captions = [_caption(first.test, row, definition) for row in range(len(rare))]
        for result in results:
            largest = _largest(result.scores[definition])
            truth = result.task.rare[definition][1]
            tail = suffix if result is first else f"{suffix}-{_slug(result.name)}"
            title = f"{result.name}, rare: {definition.name}"
            make = partial(pictures.histograms, largest, truth, options.plan.percentiles, title)
            add(make, f"scores{tail}.png", "Scores of the test images; lines: thresholds by p")
            make = partial(pictures.curves, largest, truth, title)
            add(make, f"curves{tail}.png", "Precision over recall, lift over share flagged")
        for one in _largest(first.scores[definition]):
            make = partial(
                pictures.sheet, one, first.test.paths, captions, rare, one.detector, levels
            )
            caption = (
                f"{one.detector}: most and least rare by its scores, with their share or class"
            )
            add(make, f"images{suffix}-{one.detector}.jpg", caption)  # photographs
            if DETECTORS[one.detector].regions:
                make = partial(_maps, first, one, definition, captions)
                caption = f"{one.detector}: where it sees what the exemplars' regions show, in red"
                add(make, f"maps{suffix}-{one.detector}.jpg", caption)
    means = [row for row in rows if row.definition.startswith("mean of ")]
    if means:
        page.heading("Mean over the definitions")
        page.table(table.markdown(means))
    if options.output.poster:
        page.heading("The poster's table")
        page.text("Base rate, flag rate and lift follow from its numbers.")
        page.table(table.markdown(table.poster_rows()))
    page.save(out / "report.html")
    return failed


def _maps(
    result: Measured, one: Scores, definition: RareDefinition, captions: Sequence[str]
) -> Figure:
    """Draw where the regions of the first exemplars are seen in the images that score highest."""
    task, rows = result.task, pictures.highest(one, 12)
    exemplars = draws(task.rare[definition][0], result.plan, 0, 1)[0]
    images = (task.test or task.fit)[rows]
    assert images.patches is not None  # a detector by regions has them
    grid = images.patches.array.shape[1:3]
    found = region_maps(images, task.exemplars(exemplars, definition, regions=True))
    return pictures.maps(
        [seen.reshape(grid).numpy() for seen in found],
        [result.test.paths[row] for row in rows],
        result.size,
        [captions[row] for row in rows],
        task.rare[definition][1][rows],
        f"{one.detector}: where it sees {definition.name} in the highest scores; red caption: rare",
        result.test.levels,
    )


def _largest(scores: Sequence[Scores]) -> list[Scores]:
    """Return each detector's scores with the most fit samples."""
    best: dict[str, Scores] = {}
    for one in scores:
        if one.detector not in best or (one.n_fit or 0) >= (best[one.detector].n_fit or 0):
            best[one.detector] = one
    return list(best.values())


def _slug(name: str) -> str:
    """Return ``name`` as a part of a file's name, which has 255 bytes at most."""
    slug = re.sub(r"[^\w.-]+", "_", name)
    return slug.encode()[:60].decode(errors="ignore")


def _caption(split: Split, row: int, definition: RareDefinition) -> str:
    if not split.by_pixels:
        return split.caption(row)
    return f"{split.shares[row, list(definition.class_ids)].sum():.1%}"
