"""Which figures in a run's folder may be shown: those of its own data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from solo_ood.data.image_folder import image_folder
from solo_ood.errors import UserError
from solo_ood.evaluation.data import describe_data, read
from solo_ood.evaluation.figures import FILE, LABELS, Figure, main_reference, saved
from solo_ood.evaluation.groups import format_groups
from solo_ood.evaluation.tables import AUROC, columns_of, interval_text
from solo_ood.host.run_folder import RunFiles, same_folder
from solo_ood.pages.parts import Cell, Column, Table, number_cell


def evaluation_lines(run: RunFiles) -> list[str]:
    """Return what ``report`` says: ``evaluation.json`` goes before the release's two files.

    Of each method the figures of its main reference; the others are on the page.
    """
    lines: list[str] = []
    newest, known = run.checkpoint_facts(), _figures(run.folder)
    judged = [(figure, why_not_shown(figure, run)) for figure in known]
    subjects = [figure.measured_on for figure, reason in judged if not reason]
    differ = [
        key for key in ("train", "image_size") if len({subject[key] for subject in subjects}) > 1
    ]
    data: dict[str, None] = {}
    for method, name in LABELS.items():
        head = f"{name}, %"
        figures, wrong = [figure for figure in known if figure.method == method], ""
        main = main_reference([one for one, reason in judged if one in figures and not reason])
        for figure, reason in judged:
            if figure.method != method or (figure.reference != main and not reason):
                continue
            if reason:
                wrong = reason
                continue
            for part in ("val", "train"):
                if figure.about.get(part):
                    data[f"{part}: {describe_data(figure.about[part])}"] = None
            if "reference" in figure.about:
                data[f"reference {figure.about['reference']}"] = None
            same = [other.weights for other in figures if other.reference == main]
            alone = same.count(figure.weights) == 1
            details = _details(figure, newest, alone)
            details += "".join(f", {key} {figure.measured_on[key]}" for key in differ)
            text = f"{format_groups(figure.accuracy)}  ({details})"
            lines.append(f"{head:<14}{text}")
            head = ""
        if head and not figures:
            lines.append(f"{head:<14}not evaluated")
        if wrong:
            lines.append(f"{head:<14}not shown: {wrong}")
    lines += [f"{'':<14}{text}" for text in sorted(data, reverse=True)]
    return lines


def shown_figures(run: RunFiles) -> list[Figure]:
    """Return the figures of a run that may be shown."""
    return [figure for figure in _figures(run.folder) if not why_not_shown(figure, run)]


def figures_table(figures: Sequence[Figure]) -> Table:
    """Return a table of the figures, each with its 95 % interval."""
    names = columns_of(figures)
    chosen = ("Reference", "Method", "Network", "Checkpoint")
    heads = [Column(name, filter=True) for name in chosen]
    rows = []
    for figure in figures:
        cells = [
            Cell(figure.reference),
            Cell(LABELS[figure.method], figure.settings),
            Cell(figure.weights),
            Cell(str(figure.about.get("checkpoint"))),
        ]
        for name in names:
            value = figure.auroc if name == AUROC else figure.accuracy.get(name)
            text = "–" if value is None else f"{value:.3f}" if name == AUROC else f"{value:.1f}"
            cells.append(number_cell(text, value, interval_text(figure, name)))
        rows.append(cells)
    caption = "Accuracy in %, Std in points, AUROC of the Few classes; below each its 95 % interval"
    return Table(caption, [*heads, *(Column(name, number=True) for name in names)], rows)


def why_not_shown(figure: Figure, run: RunFiles) -> str:
    """Return why a figure is not shown for this run; "" if it is.

    A run with labelled validation images is judged by those. Where it has none, whatever the user
    named is shown, with its path.
    """
    again = f"evaluate again: solo-ood evaluate {run.folder}"
    if not figure.has_data:
        return f"a figure that does not say of which data; {again}"
    val, own = figure.about["val"], run.image_folder("val_path")
    if own is None:
        return ""
    if not same_folder(val["path"], own):
        return f"of other data, {val['path']}, not of the run's {own}"
    now = _counts(own)
    if now and val["images"] not in now:
        return f"of {val['images']:,} images where {own} now holds {now[0]:,}; {again}"
    return ""


def _details(figure: Figure, newest: dict[str, Any], alone: bool) -> str:
    parts = [figure.weights, "" if alone else figure.settings]
    if figure.about.get("checkpoint") != newest["checkpoint"]:
        parts.append(f"of epoch {figure.about.get('epoch')}")
    return ", ".join(filter(None, parts))


def _figures(folder: Path) -> list[Figure]:
    """Return the figures of the files in ``folder``; a damaged file has none."""
    found = saved(folder / FILE)
    there = {figure.method for figure in found}
    for method in LABELS:
        if method not in there:
            found += saved(folder / f"{method}.json", method)
    return found


def _counts(folder: Path) -> list[int]:
    """Return how many images there are now, as each of our programs counts; [] if it is gone."""
    try:
        return [len(image_folder(folder)), len(read(folder, "val").targets)]
    except (OSError, UserError):
        return []
