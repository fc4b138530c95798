"""The files of a measurement: table, pictures, and one page that shows all of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from solo_ood.data.images import Split
from solo_ood.data.rare import RareDefinition
from solo_ood.detection import page as content
from solo_ood.detection import table
from solo_ood.detection.drawing import Drawing, slug
from solo_ood.detection.measure import Row, Scores
from solo_ood.detection.options import DetectOptions
from solo_ood.detection.plan import Plan, Task
from solo_ood.pages.page import Page
from solo_ood.text import printable


@dataclass(frozen=True)
class Measured:
    """The results with one network.

    Attributes:
        size: H and W (pixels) to which the images were scaled and cut.
        plan: with the exemplars' rows among the images that could be embedded.
    """

    name: str
    size: tuple[int, int]
    plan: Plan
    task: Task
    fit: Split
    test: Split
    scores: dict[RareDefinition, list[Scores]]
    rows: list[Row]

    @property
    def test_feats(self) -> np.ndarray:
        return (self.task.test or self.task.fit).pooled


def write_table(
    options: DetectOptions,
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
    with _aside(options.out) as folder:
        table.write(rows, folder, facts)


def write_page(
    options: DetectOptions,
    results: Sequence[Measured],
    rows: list[Row],
    notes: list[str],
    definitions: Sequence[RareDefinition],
) -> list[str]:
    """Write the pictures and the page that shows all; return what could not be drawn."""
    with _aside(options.out) as folder:
        return _draw(options, results, rows, notes, definitions, folder)


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """Yield a folder whose files are moved to ``out`` when all of them are whole."""
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".", dir=out))  # only of it we know that we may write
    try:
        yield folder
        for file in folder.iterdir():
            os.replace(file, out / file.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _draw(
    options: DetectOptions,
    results: Sequence[Measured],
    rows: list[Row],
    notes: list[str],
    definitions: Sequence[RareDefinition],
    out: Path,
) -> list[str]:
    first = results[0]
    means = [row for row in rows if row.definition.startswith("mean of ")]
    title = f"Detectors of rare images on {options.data.name}"
    page = Page(
        title, content.conclusion(means or rows, [one.name for one in definitions]), content.TERMS
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
    if options.poster:
        page.heading("The poster's table")
        page.text("Base rate, flag rate and lift follow from its numbers.")
        page.table(content.table_of(table.poster_rows(), "As printed on the poster"))
    page.save(out / "report.html")
    return drawing.failed
