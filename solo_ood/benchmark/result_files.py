"""The files of a measurement: table, pictures, and one page that shows all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from solo_ood.benchmark import page as content
from solo_ood.benchmark import table
from solo_ood.benchmark.drawing import Drawing, slug
from solo_ood.benchmark.measure import TableRow
from solo_ood.benchmark.options import MeasureOptions
from solo_ood.benchmark.request import Request
from solo_ood.benchmark.scoring import Measured
from solo_ood.data.rare import RareDefinition
from solo_ood.files import atomic
from solo_ood.files.text import printable
from solo_ood.pages.page import Page


def report(
    request: Request, results: Sequence[Measured], show: Callable[[str], None]
) -> list[TableRow]:
    """Write the table, then the pictures and the page; return the rows of the table.

    A picture that fails costs nothing but itself.
    """
    notes = list(
        dict.fromkeys([*request.notes, *(note for result in results for note in result.notes)])
    )
    rows = [row for result in results for row in result.rows]
    rows += [row for result in results for row in table.mean_rows(result.rows)]
    options, definitions = request.options, request.definitions
    write_table(options, rows, notes, definitions)
    show("\n".join([table.terminal(rows), *map(printable, notes)]))  # whatever drawing may raise
    failed = write_page(options, results, rows, notes, definitions)
    page = options.output.folder / "report.html"
    show("\n".join([*failed, printable(f"report: {page}")]))
    return rows


def write_table(
    options: MeasureOptions,
    rows: list[TableRow],
    notes: list[str],
    definitions: Sequence[RareDefinition],
) -> None:
    """Write the table in all its forms."""
    facts = {
        "command": printable(options.command),
        "notes": [printable(note) for note in notes],
        "rare": [
            asdict(replace(definition, name=printable(definition.name)))
            for definition in definitions
        ],
        "plan": asdict(options.plan),
    }
    with atomic.staged_files(options.output.folder) as folder:
        table.write(rows, folder, facts)


def write_page(
    options: MeasureOptions,
    results: Sequence[Measured],
    rows: list[TableRow],
    notes: list[str],
    definitions: Sequence[RareDefinition],
) -> list[str]:
    """Write the pictures and the page that shows all; return what could not be drawn."""
    with atomic.staged_files(options.output.folder) as folder:
        return _draw(options, results, rows, notes, definitions, folder)


def _draw(
    options: MeasureOptions,
    results: Sequence[Measured],
    rows: list[TableRow],
    notes: list[str],
    definitions: Sequence[RareDefinition],
    out: Path,
) -> list[str]:
    first = results[0]
    means = [row for row in rows if row.definition.startswith("mean of ")]
    title = f"Detectors of rare images on {options.data.path.name}"
    page = Page(
        title,
        content.conclusion(means or rows, [definition.name for definition in definitions]),
        content.TERMS,
    )
    page.text(
        "Higher score = rarer; an image is flagged if its score is above a threshold that was set "
        "on scores of images which the detector had not seen. Values are means over the repeats; "
        "[intervals] hold 95 % of single repeats on resampled test images."
    )
    if options.command:
        page.code(options.command)
    page.listing([f"{len(first.fit)} images to fit on, {len(first.test)} to test on", *notes])
    drawing = Drawing(page, out, options, results)
    for number, definition in enumerate(definitions, 1):
        mine = [row for row in rows if row.definition == definition.name]
        drawing.definition(definition, mine, f"-{number}-{slug(definition.name)}")
    if means:
        page.heading("Mean over the definitions")
        page.table(content.table_of(means, "Means over the definitions of rare, no intervals"))
    if options.output.poster:
        page.heading("The poster's table")
        page.text("Base rate, flag rate and lift follow from its numbers.")
        page.table(content.table_of(table.poster_rows(), "As printed on the poster"))
    page.save(out / "report.html")
    return drawing.failed
