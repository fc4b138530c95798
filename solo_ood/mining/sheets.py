"""Sheets that a person fills in, ``path,rare``: written, and read with one error for each slip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from solo_ood.data.lists import read_csv
from solo_ood.errors import UserError, short_repr

YES, NO = ("yes", "y", "true", "1"), ("no", "n", "false", "0")


def read_answers(sheet: Path, row_of: Callable[[str, str], int]) -> dict[int, bool]:
    """Return the answers of a sheet by row of the data.

    Args:
        sheet: a CSV of ``path,rare``; lines without an answer are left out.
        row_of: finds the row of a path; the second text says where it is written.

    Raises:
        UserError: for another word than yes or no, an image that is not found, or one with two
            answers.
    """
    answers: dict[int, bool] = {}
    for line, values in read_csv(sheet, ("path",)):
        what = f"{sheet.name}, line {line}"
        if "rare" not in values:
            raise UserError(
                sheet.name,
                expected="the columns path and rare",
                got=", ".join(values),
                remedy="Write yes or no into a column rare.",
            )
        word = (values["rare"] or "").casefold()
        if not word:
            continue
        if word not in (*YES, *NO):
            raise UserError(
                what,
                expected="yes or no in the column rare",
                got=short_repr(values["rare"]),
                remedy="Leave it empty where you do not know.",
            )
        row, is_rare = row_of(values["path"], what), word in YES
        if answers.get(row, is_rare) != is_rare:
            raise UserError(
                what,
                expected="one answer for each image",
                got=f"yes and no for {values['path']}",
                remedy="Remove one of the two lines.",
            )
        answers[row] = is_rare
    return answers


def is_filled(sheet: Path) -> bool:
    """Whether somebody has written into the column ``rare`` of a sheet that is there."""
    if not sheet.exists():
        return False
    try:
        return any(row.get("rare") for _, row in read_csv(sheet, ("path",)))
    except UserError:
        return True  # whatever it is, it is not ours to write over
