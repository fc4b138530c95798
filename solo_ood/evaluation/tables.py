"""Figures of an evaluation for people and programs: terminal, Markdown, CSV, a chart."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from solo_ood.evaluation import chart
from solo_ood.evaluation.data import describe_data
from solo_ood.evaluation.figures import COLUMNS, DATA, FILE, LABELS, Figure, record, saved
from solo_ood.files import atomic
from solo_ood.pages.markdown import table
from solo_ood.pages.plots import save_or_explain

AUROC = "AUROC"
CHART = "evaluation.png"
FILES = (FILE, "evaluation.csv", "evaluation.md", "evaluation_classes.csv", CHART)


def terminal(figures: Sequence[Figure]) -> str:
    """Return a table for each reference, two lines for each figure; at most 80 columns."""
    lines: list[str] = []
    for text, group in groupby(figures, lambda figure: figure.about.get("reference", "")):
        few = list(group)
        names = columns_of(few)
        head = f"{'accuracy, %':<18}" + "".join(f"{name:>7}" for name in names)
        lines += ["", *([text] if text else []), head]
        for figure in few:
            label = f"{LABELS[figure.method]}, {figure.weights}"
            numbers = "".join(f"{_value(figure, name):>7}" for name in names)
            lines.append(f"{label:<18}{numbers}   {figure.settings}".rstrip())
            if figure.intervals:
                widths = "".join(f"{_half_width(figure, name):>7}" for name in names)
                lines.append(f"{'  95 %: +-':<18}{widths}")
    return "\n".join(lines[1:])


def columns_of(figures: Sequence[Figure]) -> list[str]:
    """Return the names of what at least one of the figures has."""
    found = [name for name in COLUMNS if any(name in figure.accuracy for figure in figures)]
    return found + [AUROC] * any(figure.auroc is not None for figure in figures)


def _number(figure: Figure, name: str) -> float | None:
    return figure.auroc if name == AUROC else figure.accuracy.get(name)


def _rounded(name: str, value: float) -> str:
    return f"{value:.3f}" if name == AUROC else f"{value:.1f}"


def _value(figure: Figure, name: str) -> str:
    value = _number(figure, name)
    return "–" if value is None else _rounded(name, value)


def _half_width(figure: Figure, name: str) -> str:
    """Return half of the interval's length, which need not be symmetric."""
    ends = figure.intervals.get(name)
    return "" if ends is None else _rounded(name, (ends[1] - ends[0]) / 2)


def interval_text(figure: Figure, name: str) -> str:
    """Return ``[low, high]``; "" if it is not known."""
    ends = figure.intervals.get(name)
    return "" if ends is None else f"[{', '.join(_rounded(name, end) for end in ends)}]"


def markdown(figures: Sequence[Figure]) -> str:
    """Return a table for each checkpoint and data, and below it what these are."""
    tables: dict[str, list[Figure]] = {}
    for figure in figures:
        tables.setdefault(json.dumps(figure.measured_on), []).append(figure)
    head = (
        "Accuracy in %; Std, of Many, Medium and Few, in points; AUROC of the Few classes against "
        "the others. In brackets 95 % intervals.\n"
    )
    return "\n".join([head, *map(_table, tables.values())])


def _table(figures: Sequence[Figure]) -> str:
    names = columns_of(figures)
    rows = []
    for figure in figures:
        numbers = [f"{_value(figure, n)} {interval_text(figure, n)}".strip() for n in names]
        head = [figure.reference, LABELS[figure.method], figure.weights]
        rows.append([*head, *numbers, figure.settings])
    lines = [table(["Reference", "", "Weights", *names, "Settings"], rows)]
    about = figures[0].about
    lines += ["", f"- checkpoint: {about.get('checkpoint')}, epoch {about.get('epoch')}"]
    lines += [
        f"- {name.replace('_', '-')}: {describe_data(about[name])}"
        for name in DATA
        if about.get(name)
    ]
    texts = dict.fromkeys(figure.about.get("reference") for figure in figures)
    lines += [f"- reference {text}" for text in texts if text]
    if about.get("notes"):
        lines.append(f"- note: {about['notes']}")
    return "\n".join(lines) + "\n"


def write(new: Sequence[Figure], folder: Path, facts: dict[str, Any]) -> list[str]:
    """Write the ``FILES``, all or none of them; return their paths, or why there is no chart.

    What they hold of another method, setting, network, reference, checkpoint or data stays, after
    the new; the chart is of the new alone.
    """
    keys = {figure.key for figure in new}
    old = [kept for kept in saved(folder / FILE) if kept.has_data and kept.key not in keys]
    figures = [*new, *old]
    records = [record(figure) for figure in figures]
    with atomic.staged_files(folder) as aside:
        text = json.dumps({"about": facts, "figures": records}, indent=1)
        (aside / FILES[0]).write_text(text + "\n", encoding="utf-8")
        _write_csv(aside / FILES[1], map(_flat, records))
        (aside / FILES[2]).write_text(markdown(figures), encoding="utf-8")
        _write_csv(aside / FILES[3], (row for figure in figures for row in _class_rows(figure)))
        failed = chart.why_not(new) or save_or_explain(lambda: chart.draw(new), aside / CHART)
    if failed:
        (folder / CHART).unlink(missing_ok=True)  # of an evaluation before
    return [str(folder / name) for name in FILES[:4]] + [failed or str(folder / CHART)]


def _write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    names = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(rows)


def _flat(given: dict[str, Any]) -> dict[str, Any]:
    """Return a record in which every value is a column: ``Few_low``, ``val_path``, ..."""
    flat = {k: v for k, v in given.items() if k not in ("about", "intervals", "classes")}
    for name, (low, high) in given["intervals"].items():
        flat |= {f"{name}_low": low, f"{name}_high": high}
    for key, value in given["about"].items():
        if key == "reference":
            flat["reference_text"] = value
        elif isinstance(value, dict):
            flat.update({f"{key}_{name}": part for name, part in value.items()})
        else:
            flat[key] = value
    return flat


def _class_rows(figure: Figure) -> list[dict[str, Any]]:
    about = {key: figure.about.get(key) for key in ("checkpoint", "k", "temperature")}
    head = {"method": figure.method, "weights": figure.weights, "reference": figure.reference}
    return [{**head, **row, **about} for row in figure.classes]
