"""The rows of a ranking, as ``ranking.csv`` has them: read, and filtered for a view."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from solo_ood.detection.boxes import SIDES, Box
from solo_ood.errors import UserError
from solo_ood.mining.output import COLUMNS

LIST = "ranking.csv"


@dataclass(frozen=True)
class Row:
    """A picture in a ranking, see ``mining.ranking.Entry``; ``name`` is its path as written."""

    name: str
    rank: int | None
    score: float
    percentile: float
    state: str
    clip: str
    like: int
    box: Box | None


@dataclass(frozen=True)
class Listing:
    """All rows, best first, and what is asked of them again and again."""

    rows: Sequence[Row]

    @cached_property
    def chosen(self) -> list[Row]:
        """The scenes that were asked for."""
        return [row for row in self.rows if row.state == "chosen"]

    @cached_property
    def by_name(self) -> dict[str, Row]:
        """The rows by their names."""
        return {row.name: row for row in self.rows}

    @cached_property
    def clips(self) -> list[str]:
        """Names of all clips."""
        return sorted({row.clip for row in self.rows if row.clip})

    @cached_property
    def scores(self) -> tuple[float, float] | None:
        """The lowest and the highest score; ``None`` = there are none."""
        known = [row.score for row in self.rows if math.isfinite(row.score)]
        return (min(known), max(known)) if known else None


@dataclass(frozen=True)
class Filter:
    """Which rows are wanted.

    Attributes:
        clip: of this clip alone; ``None`` = of any.
        low: the lowest score.
        high: the highest; rows without a score count only if neither is given.
        words: all of which occur in the path, in any case.
    """

    clip: str | None = None
    low: float = -math.inf
    high: float = math.inf
    words: str = ""

    def holds(self, row: Row) -> bool:
        """Whether a row is wanted."""
        if self.clip is not None and row.clip != self.clip:
            return False
        if (self.low, self.high) != (-math.inf, math.inf) and not (
            self.low <= row.score <= self.high
        ):
            return False
        name = row.name.casefold()
        return all(word in name for word in self.words.casefold().split())


def read_rows(out: Path) -> list[Row]:
    """Return the rows of ``ranking.csv``.

    Raises:
        UserError: if there is none, or it is not as ``rank`` writes it.
    """
    path = out / LIST
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = rows_of(csv.DictReader(file))
    except OSError as error:
        got = f"no {LIST} ({error.strerror})"
    except (ValueError, KeyError, TypeError, csv.Error) as error:  # also of an encoding
        got = f"{LIST} of another form ({type(error).__name__}: {error})"
    else:
        if rows:
            return rows
        got = f"{LIST} without rows"
    raise UserError(
        str(out),
        expected=f"a folder that solo-ood rank wrote, with {LIST} ({', '.join(COLUMNS)})",
        got=got,
        remedy="Make the list again by solo-ood rank.",
    )


def rows_of(records: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return records of ``mining.output`` as rows; numbers may be texts, and "" is none."""
    return [_row(record) for record in records]


def _row(record: Mapping[str, Any]) -> Row:
    box = tuple(_number(record[side]) for side in SIDES)
    rank = record["rank"]
    return Row(
        name=record["path"],
        rank=int(rank) if rank not in ("", None) else None,
        score=_number(record["score"]),
        percentile=_number(record["percentile"]),
        state=record["state"],
        clip=record["clip"] or "",
        like=int(record["like"] or 0),
        box=None if any(map(math.isnan, box)) else (box[0], box[1], box[2], box[3]),
    )


def _number(value: Any) -> float:
    return math.nan if value in ("", None) else float(value)
