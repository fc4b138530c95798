"""The results of a study as files: JSON, CSV, Markdown, a figure, and a page."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from solo_ood.files import atomic
from solo_ood.pages import plots
from solo_ood.pages.page import Page
from solo_ood.pages.parts import Cell as PageCell
from solo_ood.pages.parts import Column, Table, number_cell
from solo_ood.study import table, terminal
from solo_ood.study.options import StudyOptions
from solo_ood.study.plan import Study
from solo_ood.study.table import GROUPS, PROBES, Results, Row

FILES = ("results.json", "results.csv", "results.md", "differences.png", "report.html")
HOW = """\
Accuracy in % of {weights} features on test images, by probes fitted on held-out balanced labelled
images. Differences are of pairs, in points: same seed, initialisation, class order and training
images; [95 % bootstrap interval of the mean over the pairs], p of a two-sided sign-flip test,
Holm-corrected over the rows and groups of its table. Of n pairs p is at least 2 / 2^n before the
correction."""


def write(study: Study, results: Results, options: StudyOptions) -> str:
    """Write all files of a study's results to ``options.out``; return the text for the terminal."""
    rows = table.differences(study, results)
    with atomic.staged_files(options.out) as folder:
        records = [{**result, "cell": result["cell"]} for result in results.values()]
        about = {"command": options.command, "about": study.about, "study": options.config}
        content = {**about, "differences": [_record(row) for row in rows], "cells": records}
        (folder / "results.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        _csv(folder / "results.csv", results)
        (folder / "results.md").write_text(
            _markdown(study, results, rows, options), encoding="utf-8"
        )
        failed = plots.save_or_explain(lambda: figure(study, rows), folder / "differences.png")
        _page(study, results, rows, options, folder, failed)
    written = ["", f"written: {options.out}/", f"  {', '.join(FILES)}"]
    return "\n".join([terminal.text(study, results, rows), *written, *([failed] if failed else [])])


def _record(row: Row) -> dict[str, Any]:
    found = {**vars(row), **row.difference._asdict()}
    found.pop("difference")
    return found


def _csv(path: Path, results: Results) -> None:
    """Write a row for each cell and probe."""
    rows = []
    for cell, result in results.items():
        for probe, accuracy in result["accuracy"].items():
            logged = result.get("logged") or {}
            rows.append({**vars(cell), "probe": probe, **accuracy, **logged, **result["seconds"]})
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def _sections(study: Study, results: Results, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return heading and table of each part of the Markdown."""
    found = []
    for probe, name in PROBES.items():
        for against in study.against:
            found.append(
                (
                    f"{name}: difference to {against}",
                    table.paired_table(study, rows, probe, against),
                )
            )
    for probe, name in PROBES.items():
        title = f"{name}: accuracy, mean ± standard deviation over the pairs"
        found.append((title, table.accuracy_table(study, results, probe)))
    found.append(("What was replayed", table.replay_table(study, results)))
    title = "Rows trained on by class, most frequent first: fresh + replayed (distinct images)"
    found.append((title, table.exposure_table(study, results)))
    return found


def _markdown(study: Study, results: Results, rows: Sequence[Row], options: StudyOptions) -> str:
    lines = [f"# {study.about}", "", f"`{options.command}`", "", HOW.format(weights=study.weights)]
    missing = len(study.cells) - len(results)
    if missing:
        lines += ["", f"**{missing} of {len(study.cells)} cells are missing.**"]
    for title, text in _sections(study, results, rows):
        lines += ["", f"## {title}", "", text]
    return "\n".join(lines) + "\n"


def figure(study: Study, rows: Sequence[Row]) -> Figure:
    """Draw the main probe's differences to the first reference with their intervals, by group."""
    probe, against = next(iter(PROBES)), study.against[0]
    own = [row for row in rows if (row.probe, row.against) == (probe, against)]
    places = list(dict.fromkeys((row.budget, row.arm) for row in own))
    drawn = Figure(figsize=(8, 1.4 + 0.55 * len(places)), layout="constrained")
    axis = drawn.subplots()
    for number, group in enumerate(GROUPS):
        style: dict[str, Any] = {
            "color": plots.COLORS[number],
            "marker": "osD^"[number],
            "linestyle": "",
        }
        for row in (row for row in own if row.group == group):
            y = places.index((row.budget, row.arm)) + 0.17 * (number - 1.5)
            mean, low, high, *_ = row.difference
            around = [[mean - low], [high - mean]] if row.difference.n > 1 else None
            axis.errorbar([mean], [y], xerr=around, capsize=2, markersize=5, label=group, **style)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(places)), [", ".join(filter(None, place)) for place in places])
    axis.invert_yaxis()
    axis.set_xlabel(f"difference to {against} (points of accuracy; 95 % interval)")
    axis.set_title(f"{PROBES[probe]}: {study.about}", fontsize=10)
    plots.legend(drawn)
    return drawn


def _page(
    study: Study, results: Results, rows: Sequence[Row], options: StudyOptions, folder: Path,
    failed: str | None,
) -> None:  # fmt: skip
    page = Page(study.about, _conclusion(study, rows), ["k-NN", "linear", "Many", "Medium", "Few"])
    page.code(options.command)
    page.text(HOW.format(weights=study.weights))
    if failed is None:
        page.picture(folder / "differences.png", f"Differences to {study.against[0]} by group.")
    columns = [
        *(Column(name, filter=True) for name in ("probe", "budget", "arm", "against", "group")),
        *(Column(name, number=True) for name in ("pairs", "difference", "p (Holm)")),
    ]
    cells = [_cells(row) for row in rows]
    page.heading("Differences")
    page.table(Table("Paired differences in points", columns, cells))
    page.heading("Accuracy")
    columns = [Column(name, filter=True) for name in ("budget", "arm", "pair", "probe")]
    columns += [Column(name, number=True) for name in GROUPS]
    page.table(Table("Accuracy in % of every cell", columns, list(_accuracy_cells(results))))
    page.save(folder / "report.html")


def _cells(row: Row) -> list[PageCell]:
    mean, low, high, _, n = row.difference
    words = (PROBES[row.probe], row.budget, row.arm, row.against, row.group)
    interval = f"[{low:+.1f}, {high:+.1f}]" if n > 1 else ""
    return [
        *map(PageCell, words),
        number_cell(str(n), n),
        number_cell(f"{mean:+.1f}", mean, interval),
        number_cell(f"{row.p_holm:.3f}", row.p_holm),
    ]


def _accuracy_cells(results: Results) -> list[list[PageCell]]:
    found = []
    for cell, result in results.items():
        for probe, accuracy in result["accuracy"].items():
            pair = f"seed {cell.seed}, order {cell.order}"
            cells = [PageCell(text) for text in (cell.budget, cell.arm, pair, PROBES[probe])]
            numbers = [accuracy.get(group) for group in GROUPS]
            cells += [
                number_cell("–" if value is None else f"{value:.1f}", value) for value in numbers
            ]
            found.append(cells)
    return found


def _conclusion(study: Study, rows: Sequence[Row]) -> list[str]:
    """Return the comparisons of the main probe whose interval excludes 0, or that there is none."""
    probe, against = next(iter(PROBES)), study.against[0]
    own = [row for row in rows if (row.probe, row.against) == (probe, against)]
    n = max((row.difference.n for row in own), default=0)
    clear = [row for row in own if row.difference.low > 0 or row.difference.high < 0]
    said = [
        f"{', '.join(filter(None, (row.budget, row.arm)))}: {row.difference.mean:+.1f} points "
        f"on {row.group} (p {row.p_holm:.2f} after correction)."
        for row in clear
    ]
    head = f"Against {against}, {n} pairs, {PROBES[probe]}: "
    return [head + ("no interval excludes 0." if not said else "intervals that exclude 0:"), *said]
