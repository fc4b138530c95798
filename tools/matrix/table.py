"""Print the results as the table of docs/compatibility.md, and put it there: ``nox -s table``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matrix.hosts import HOSTS
from matrix.installed import SHOWN
from matrix.program import ROOT
from matrix.results import Results, read
from matrix.runs import LAUNCHER, RUNS
from solo_ood.pages import markdown

START = "<!-- compatibility: made by make compatibility -->"
END = "<!-- /compatibility -->"
SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
COLUMNS = [name for name, run in RUNS.items() if run.shown]


def table(results: Results) -> str:
    """Return the table, its footnotes and the versions it was made with, as Markdown."""
    rows = [(host, results[host.key]) for host in HOSTS if host.key in results]
    rows = [(host, row) for host, row in rows if set(COLUMNS) & set(row["cells"])]
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
    commits = sorted({row["state"][-1].split()[0] for host, row in rows if host.tree})
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


def main() -> None:
    text, page = table(read()), ROOT / "docs/compatibility.md"
    print(text)
    if not publish(text, page):
        raise SystemExit(f"not written: {page.name} has no markers {START} and {END}")


if __name__ == "__main__":
    main()
