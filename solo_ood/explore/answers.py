"""Answers of a person, kept in the CSVs that ``rank`` takes: every one is saved at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from solo_ood.data.lists import read_csv
from solo_ood.detection.boxes import SIDES, Box, checked_box
from solo_ood.errors import UserError
from solo_ood.files import atomic
from solo_ood.mining.audit import SHEET
from solo_ood.mining.output import csv_of
from solo_ood.mining.sheets import NO, YES, read_answers

ANSWERS, BOXES = "explored-answers.csv", "explored-boxes.csv"


@dataclass(frozen=True)
class Answer:
    """What was said of a picture: whether it is rare, and where what matters is."""

    rare: bool
    boxes: tuple[Box, ...] = ()

    @property
    def word(self) -> str:
        """As a sheet has it."""
        return "yes" if self.rare else "no"


class _File:
    """A file of ours that nobody else may change meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = self._content()

    def _content(self) -> bytes | None:
        return self.path.read_bytes() if self.path.exists() else None

    def put(self, content: bytes | None) -> None:
        """Write the file in one step; ``None`` = remove it.

        Raises:
            UserError: if another program wrote it.
            OSError: if it cannot be written; nothing has changed then.
        """
        if self._content() != self._known:
            raise UserError(
                str(self.path),
                expected="the file as it was saved last",
                got="one that another program has written",
                remedy="Call solo-ood explore again: it begins with what is in the file.",
            )
        if content is not None:
            atomic.write(content, self.path)
        elif self._known is not None:
            self.path.unlink()
        self._known = content


class Answers:
    """Answers by the name of the picture, in the order in which they were given.

    ``explored-answers.csv`` is for ``--feedback``, ``explored-boxes.csv`` for ``--boxes``; neither
    is there as long as it would be empty.

    Args:
        out: the folder of both.
        names: of all pictures.
        paths: of each the file; ``None`` = it is gone.

    Raises:
        UserError: for a sheet that is there and cannot be read.
    """

    def __init__(self, out: Path, names: Sequence[str], paths: Sequence[Path | None]) -> None:
        self.sheet = _File(out / ANSWERS)
        self._marked = _File(out / BOXES)
        self._given: dict[str, Answer] = {}
        if self.sheet.path.exists():
            files = [path or out / name for name, path in zip(names, paths)]
            read = read_answers([self.sheet.path], files, _finder(names), _kept_box)
            self._given = {
                names[row]: Answer(rare, tuple(read.boxes.get(row, ())))
                for row, rare in read.rare.items()
            }

    def get(self, name: str) -> Answer | None:
        """Return what was said of a picture."""
        return self._given.get(name)

    @property
    def names(self) -> list[str]:
        """The pictures that were answered, the newest last."""
        return list(self._given)

    def counts(self) -> dict[str, int]:
        """Return how many are yes, how many no, and how many boxes there are."""
        yes = sum(answer.rare for answer in self._given.values())
        boxes = sum(len(answer.boxes) for answer in self._given.values())
        return {"yes": yes, "no": len(self._given) - yes, "boxes": boxes}

    def put(self, name: str, answer: Answer | None) -> None:
        """Keep an answer, on the disk, too; ``None`` takes it back.

        Raises:
            UserError, OSError: if it cannot be saved; the earlier one counts then.
        """
        given = {**self._given}
        if answer is None:
            given.pop(name, None)
        else:
            given[name] = answer
        self.sheet.put(_sheet(given))
        self._given = given
        self._marked.put(_boxes(given))


class AuditSheet:
    """``audit.csv`` of ``rank --audit``, filled in line by line.

    Args:
        out: its folder.
        names: of all pictures.

    Raises:
        UserError: for a sheet that is there and cannot be read.
    """

    def __init__(self, out: Path, names: Sequence[str]) -> None:
        self.sheet = _File(out / SHEET)
        self._rows: dict[str, dict[str, str]] = {}
        known = set(names)
        if self.sheet.path.exists():
            rows = [row for _, row in read_csv(self.sheet.path, ("path",))]
            if known.issuperset(row["path"] for row in rows):  # else it is of another list
                self._rows = {row["path"]: {**row, "rare": row.get("rare") or ""} for row in rows}

    @property
    def names(self) -> list[str]:
        """The pictures that were drawn, in the order of the sheet."""
        return list(self._rows)

    def get(self, name: str) -> Answer | None:
        """Return what was said of a picture."""
        word = self._rows.get(name, {}).get("rare", "").casefold()
        return Answer(word in YES) if word in (*YES, *NO) else None

    def counts(self) -> dict[str, int]:
        """Return how many lines are filled in, and how many there are."""
        filled = sum(self.get(name) is not None for name in self._rows)
        return {"answered": filled, "drawn": len(self._rows)}

    def put(self, name: str, answer: Answer | None) -> None:
        """Fill in a line, on the disk, too; ``None`` empties it.

        Raises:
            UserError, OSError: if it cannot be saved; the earlier one counts then.
        """
        row = {**self._rows[name], "rare": "" if answer is None else answer.word}
        rows = {**self._rows, name: row}
        self.sheet.put(csv_of(list(rows.values()), list(row)))
        self._rows = rows


def _finder(names: Sequence[str]) -> Callable[[str, str], int]:
    row_of = {name: row for row, name in enumerate(names)}

    def find(name: str, what: str) -> int:
        if name not in row_of:
            raise UserError(
                f"{what}, {name!r}",
                expected="a picture of this ranking",
                got="another one",
                remedy="Remove the line, or move the sheet to the ranking that it is of.",
            )
        return row_of[name]

    return find


def _kept_box(sides: Sequence[str], path: Path, what: str) -> Box:
    """Return a box that was saved before; in a picture that is gone it cannot be checked."""
    if path.exists():
        return checked_box(sides, path, what)
    left, top, right, bottom = map(float, sides)
    return left, top, right, bottom


def _sheet(given: Mapping[str, Answer]) -> bytes | None:
    rows = []
    for name, answer in given.items():
        line = {"path": name, "rare": answer.word}
        rows += [{**line, **_sides(box)} for box in answer.boxes] or [line]
    return csv_of(rows, ["path", "rare", *SIDES]) if rows else None


def _boxes(given: Mapping[str, Answer]) -> bytes | None:
    rows = [{"path": name, **_sides(box)} for name, answer in given.items() for box in answer.boxes]
    return csv_of(rows, ["path", *SIDES]) if rows else None


def _sides(box: Box) -> dict[str, str]:
    return {side: f"{value:.10g}" for side, value in zip(SIDES, box)}
