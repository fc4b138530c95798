"""``solo-ood study``: the matrix, its missing cells, then the tables, the figure and the page."""

from __future__ import annotations

import sys
from collections.abc import Callable

from solo_ood.errors import UserError
from solo_ood.files import atomic
from solo_ood.files.output import check_writable
from solo_ood.options.field import check
from solo_ood.study import data, report, runner
from solo_ood.study.cell import Place, run_cell
from solo_ood.study.options import StudyOptions
from solo_ood.study.plan import Study, read_study


def run_study(options: StudyOptions, show: Callable[[str], None] = print) -> int:
    """Make the cells of a study that are missing in ``options.out``, then its tables.

    Returns:
        how many cells failed.

    Raises:
        UserError: for a study, data or results that do not fit each other, before anything is
            trained.
    """
    check(options)
    study = read_study(options.config)
    if options.list:
        for number, cell in enumerate(study.cells):
            show(f"{number:>4}  {runner.label(cell)}")
        return 0
    check_writable(options.out, "--out", *report.FILES)
    place = Place(options.out, options.data, options.program, options.keep)
    there = runner.found(study, place)
    if options.tables:
        show(report.write(study, there, options))
        return 0
    data.sources(study.data, options.data)
    if options.cell is not None:
        return _one(study, options.cell, place, show)
    for order in sorted({cell.order for cell in study.cells}):  # not in several processes at once
        data.build(study.data, options.data, order, options.out / "data")
    missing = [cell for cell in study.cells if cell not in there]
    show(f"{study.about}\n{len(study.cells)} cells, {len(there)} of them there: {options.out}")
    failed = runner.run_all(study, missing, place, options.jobs, show)
    atomic.remove_leftovers(options.out / "cells")
    there = runner.found(study, place)
    if there:
        show(report.write(study, there, options))
    if failed:
        names = "; ".join(map(runner.label, failed))
        print(f"{len(failed)} of {len(study.cells)} cells failed: {names}", file=sys.stderr)
    return len(failed)


def _one(study: Study, number: int, place: Place, show: Callable[[str], None]) -> int:
    if number >= len(study.cells):
        raise UserError(
            "--cell",
            expected=f"a number from 0 to {len(study.cells) - 1}",
            got=number,
            remedy="--list prints them.",
        )
    cell = study.cells[number]
    if place.result(cell).is_file():
        show(f"{runner.label(cell)}: there")
    else:
        run_cell(study, cell, place)
        show(f"{runner.label(cell)}: {place.result(cell)}")
    return 0
