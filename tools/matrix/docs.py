"""Solo-learn's Sphinx pages before and after the series, built with today's versions.

``docs/requirements.txt`` of solo-learn is left aside: it pins setuptools 59.5, protobuf 3.19,
MarkupSafe 2.0.1 and Jinja2 < 3.1, which hold Sphinx at 7.3 and would replace what torch, Lightning
and wandb run on here.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matrix.hiding import hide
from matrix.program import WORK, run
from matrix.trees import make_tree

SOURCE = "docs/source/"
ENTRY = re.compile(r"^(?:(?P<where>.+?)(?::(?P<line>\d+))?: )?(?:WARNING|ERROR|CRITICAL|SEVERE): ")
DIRECTIVE = re.compile(r"^\.\. auto\w+:: *([\w.]+)")
IMPORT = re.compile(r"failed to import '?(?:\w+ )?'?([\w.]+)'? from module '([\w.]+)'")
Lines = Mapping[str, Mapping[int, str]]  # path -> number -> text, of the lines the series adds


@dataclass(frozen=True)
class Complaint:
    """A warning of Sphinx: its file (and the object, for a docstring), the line there, the text."""

    where: str
    line: int | None
    text: str

    @property
    def key(self) -> tuple[str, str]:
        """What stays the same if lines move."""
        return self.where, self.text

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        return f"{self.where}{line}: {self.text}" if self.where else self.text


def complaints(text: str, tree: str) -> list[Complaint]:
    """Read what ``sphinx-build -w`` wrote; the tracebacks below a warning are left out."""
    found = []
    for line in text.replace(f"{tree}/", "").splitlines():
        if entry := ENTRY.match(line):
            rest = re.sub(r"0x[0-9a-f]+", "0x", line[entry.end() :])
            number = int(entry["line"]) if entry["line"] else None
            found.append(Complaint(entry["where"] or "", number, rest.strip()))
    return found


def located(complaint: Complaint, directives: Mapping[str, tuple[str, int]]) -> Complaint:
    """Put a failed import where its directive stands, which autodoc does not say."""
    failed = IMPORT.search(complaint.text)
    if complaint.where or failed is None:
        return complaint
    where, line = directives.get(f"{failed[2]}.{failed[1]}", ("", None))
    return Complaint(where, line, complaint.text)


def documented(pages: Lines) -> dict[str, tuple[str, int]]:
    """Return what these lines of pages document: page and line by the object's full name."""
    return {
        match[1]: (path, number)
        for path, lines in pages.items()
        if path.startswith(SOURCE)
        for number, text in lines.items()
        if (match := DIRECTIVE.match(text))
    }


def all_lines(tree: Path) -> Lines:
    """Return the lines of all pages."""
    return {
        str(page.relative_to(tree)): dict(enumerate(page.read_text().splitlines(), 1))
        for page in sorted((tree / SOURCE).rglob("*.rst"))
    }


def is_ours(complaint: Complaint, added: Lines, new_files: list[str]) -> bool:
    """Whether a warning stems from a line of a page or from a file of the series."""
    path = complaint.where.split(":")[0]
    return path in new_files or (path.endswith(".rst") and complaint.line in added.get(path, {}))


def rendered(name: str, html: str) -> bool:
    """Whether a page shows an object's signature; ``automodule`` shows those of its members."""
    last = re.escape(name.split(".")[-1])
    shown = re.compile(rf'class="sig-name descname"><span class="pre">{last}</span>')
    return bool(shown.search(html)) or f'id="module-{name}"' in html


def build(name: str) -> tuple[list[Complaint], Path]:
    """Build the pages of a tree where this package is hidden; return warnings and folder."""
    tree, html = make_tree(name), WORK / f"html-{name}"
    warnings = WORK / f"sphinx-{name}.txt"
    warnings.unlink(missing_ok=True)
    shutil.rmtree(html, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-E", "-w", warnings]
    env = {"PYTHONPATH": os.pathsep.join([str(tree), str(hide(WORK / "hidden"))])}
    run([*command, SOURCE, html], tree, f"sphinx-{name}", env=env, timeout=3600)
    directives = documented(all_lines(tree))
    found = complaints(warnings.read_text(), str(tree))
    return [located(complaint, directives) for complaint in found], html


@dataclass(frozen=True)
class Comparison:
    """Warnings after the series: new ones, those of its own lines, old ones on its pages."""

    new: list[str]
    ours: list[str]
    old: list[str]


def compare(
    before: list[Complaint], after: list[Complaint], added: Lines, new_files: list[str]
) -> Comparison:
    """Compare by what stays the same if lines move."""
    surplus = Counter(c.key for c in after) - Counter(c.key for c in before)
    ours = {str(c) for c in after if is_ours(c, added, new_files)}
    rest = {str(c) for c in after if c.where in added and c.key not in surplus}
    return Comparison(
        new=sorted({str(c) for c in after if c.key in surplus}),
        ours=sorted(ours),
        old=sorted(rest - ours),
    )


def absent(names: Mapping[str, tuple[str, int]], html: Path) -> list[str]:
    """Return the documented objects that their pages do not show."""
    found = []
    for name, (path, _) in names.items():
        page = html / path.removeprefix(SOURCE).replace(".rst", ".html")
        if not page.exists() or not rendered(name, page.read_text()):
            found.append(f"{path}: {name}")
    return found
