"""Sheets that a person fills in, ``path,rare``: written, and read with one error for each slip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from solo_ood.data.lists import read_csv
from solo_ood.detection.boxes import SIDES, Box, checked_box
from solo_ood.errors import UserError, short_repr

YES, NO = ("yes", "y", "true", "1"), ("no", "n", "false", "0")


@dataclass
class Answers:
    """What a person said of images of the data, by row.

    Attributes:
        rare: yes or no.
        boxes: around what matters, of those that have some.
    """

    rare: dict[int, bool] = field(default_factory=dict)
    boxes: dict[int, list[Box]] = field(default_factory=dict)

    @property
    def yes(self) -> list[int]:
        """Rows of the rare ones."""
        return [row for row, is_rare in self.rare.items() if is_rare]

    @property
    def no(self) -> list[int]:
        """Rows of the others."""
        return [row for row, is_rare in self.rare.items() if not is_rare]


def read_answers(
    sheets: Sequence[Path],
    paths: Sequence[Path],
    row_of: Callable[[str, str], int],
    box_of: Callable[[Sequence[str], Path, str], Box] = checked_box,
) -> Answers:
    """Return the answers of sheets.

    Args:
        sheets: CSVs of ``path,rare``; lines without an answer are left out. Those of yes may have
            ``left,top,right,bottom``, and several lines for several boxes.
        paths: of the data.
        row_of: finds the row of a path; the second text says where it is written.
        box_of: checks a box, see ``checked_box``.

    Raises:
        UserError: for another word than yes or no, an image that is not found, one with two
            answers, or a box that is not inside its image.
    """
    answers = Answers()
    for sheet in sheets:
        for line, values in read_csv(sheet, ("path",)):
            what = f"{sheet.name}, line {line}"
            word = _word(values, what)
            if not word:
                continue
            row, is_rare = row_of(values["path"], what), word in YES
            _add(answers, row, is_rare, values["path"], what)
            sides = [values.get(side) or "" for side in SIDES]
            if is_rare and any(sides):
                answers.boxes.setdefault(row, []).append(box_of(sides, paths[row], what))
    return answers


def _word(values: dict[str, str], what: str) -> str:
    if "rare" not in values:
        raise UserError(
            what,
            expected="the columns path and rare",
            got=", ".join(values),
            remedy="Write yes or no into a column rare.",
        )
    word = (values["rare"] or "").casefold()
    if word and word not in (*YES, *NO):
        raise UserError(
            what,
            expected="yes or no in the column rare",
            got=short_repr(values["rare"]),
            remedy="Leave it empty where you do not know.",
        )
    return word


def _add(answers: Answers, row: int, is_rare: bool, name: str, what: str) -> None:
    if answers.rare.setdefault(row, is_rare) != is_rare:
        raise UserError(
            what,
            expected="one answer for each image",
            got=f"yes and no for {name}",
            remedy="Remove one of the two lines.",
        )


def is_filled(sheet: Path) -> bool:
    """Whether somebody has written into the column ``rare`` of a sheet that is there."""
    if not sheet.exists():
        return False
    try:
        return any(row.get("rare") for _, row in read_csv(sheet, ("path",)))
    except UserError:
        return True  # whatever it is, it is not ours to write over
