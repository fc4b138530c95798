"""The results as a file and as the table of docs/compatibility.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compat.cells import COLUMNS, LAUNCHER
from compat.environments import SHOWN
from compat.hosts import HOSTS
from solo_ood.files import atomic
from solo_ood.pages import markdown

START = "<!-- compatibility: made by make compatibility -->"
END = "<!-- /compatibility -->"
SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
Results = dict[str, dict[str, Any]]  # by row: state, versions, commit and the cells


def read(path: Path) -> Results:
    return json.loads(path.read_text()) if path.is_file() else {}


def write(path: Path, results: Results) -> None:
    """Write all of it or nothing, whatever ends the process."""
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    atomic.write(text.encode(), path)


def table(results: Results) -> str:
    """Return the table, its footnotes and the versions it was made with, as Markdown."""
    rows = [(host, results[host.key]) for host in HOSTS if results.get(host.key, {}).get("cells")]
    notes = _notes([(host.note, row["cells"]) for host, row in rows])

    def marked(text: str, note: str | None) -> str:
        return f"{text} {_superscript(notes.index(note) + 1)}" if note else text

    shown_rows = []
    for host, row in rows:
        cells = [row["cells"].get(column) for column in COLUMNS]
        shown = [marked(cell["result"], cell["note"]) if cell else " " for cell in cells]
        shown_rows.append([marked(host.label, host.note), *shown])
    lines = [markdown.table(["solo-learn", *COLUMNS], shown_rows), ""]
    for number, note in enumerate(notes, start=1):
        lines.append(f"{_superscript(number)} {note}  ")  # two spaces: a line break
    lines += ["", *_versions(rows)]
    return "\n".join(lines)


def _notes(rows: Sequence[tuple[str | None, dict[str, Any]]]) -> list[str]:
    """Return every note once: the launcher first, the others as they come."""
    found = dict.fromkeys(
        note
        for own, cells in rows
        for note in (own, *(cells[column]["note"] for column in COLUMNS if column in cells))
        if note
    )
    return sorted(found, key=lambda note: note != LAUNCHER)


def _superscript(number: int) -> str:
    return "".join(SUPERSCRIPTS[int(digit)] for digit in str(number))


def _versions(rows: Sequence[tuple[Any, dict[str, Any]]]) -> list[str]:
    """Return one line for each set of versions, with the rows that it belongs to."""
    sets: dict[str, list[str]] = {}
    for host, row in rows:
        used = ", ".join(f"{name} {row['versions'][name]}" for name in SHOWN)
        sets.setdefault(used, []).append(host.label)
    dates = sorted({cell["date"] for _, row in rows for cell in row["cells"].values()})
    commits = sorted({row["commit"] for _, row in rows if row["commit"]})
    when = " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "never"
    said = (
        f"Run {when} on a CPU; main is commit {', '.join(commits)}." if commits else f"Run {when}."
    )
    return [said, "", *(f"- {'; '.join(labels)}: {used}" for used, labels in sets.items())]


def publish(text: str, page: Path) -> bool:
    """Put the table between the markers of ``page``; return whether they are there."""
    before, start, rest = page.read_text().partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        return False
    page.write_text(f"{before}{START}\n{text}\n{END}{after}")
    return True
