"""What the page shows and what is done in it, apart from HTTP: lists, answers, undo, a new list."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solo_ood.data.lists import read_csv
from solo_ood.detection.boxes import checked_box
from solo_ood.errors import UserError, unknown_name
from solo_ood.explore.answers import Answer, Answers, AuditSheet
from solo_ood.explore.listing import Filter, Listing, Row, read_rows, rows_of
from solo_ood.explore.pictures import NotShown, Pictures, find_data
from solo_ood.explore.reranking import Made, Reranking
from solo_ood.mining.output import ASK
from solo_ood.mining.ranking import STATES
from solo_ood.mining.recall import read_facts, recalled

MOST = 200  # pictures in an answer of the server

# What can be looked at, by the name that the page uses.
VIEWS = {
    "chosen": "scenes that were chosen",
    "all": "all pictures",
    "ask": "whose answer would teach most",
    "answered": "answered so far",
    "audit": "the audit sheet, in its random order",
}


@dataclass(frozen=True)
class _Step:
    """What an undo brings back."""

    number: int
    audit: bool
    before: Answer | None


class Session:
    """A ranking that is looked at.

    Args:
        out: folder of ``solo-ood rank``.
        show: gets what ``rank`` says while it ranks again.
        follow_links: see ``Pictures``.

    Raises:
        UserError: if ``out`` is no ranking, or its sheets cannot be read.
    """

    def __init__(self, out: Path, show: Any, follow_links: bool = False) -> None:
        self.out = out
        facts = read_facts(out)
        options = recalled(facts)
        self.listing = Listing(read_rows(out))
        self.names = [row.name for row in self.listing.rows]
        self._number = {name: number for number, name in enumerate(self.names)}
        frames, self.notes = find_data(options, self.names)
        self.title = options.data.path.name or str(options.data.path)
        self.detector = str(facts.get("detector", ""))
        self.pictures = Pictures(self.names, frames, follow_links)
        self.notes += self._link_notes()
        self.answers = Answers(out, self.names, self.pictures.paths)
        self.audit = AuditSheet(out, self.names)
        self.ask = _names_in(out / ASK, self._number)
        self.reranking = Reranking(options, out, show)
        self._steps: list[_Step] = []

    def _link_notes(self) -> list[str]:
        count = self.pictures.count_outside()
        if not count:
            return []
        return [
            f"{count:,} pictures are links that lead out of the data and are not shown; "
            "--follow-links shows them"
        ]

    def state(self) -> dict[str, Any]:
        """Return what the page shows beside the pictures."""
        views = {name: len(self._in_view(name)) for name in VIEWS}
        ranking = self.reranking
        return {
            "title": self.title,
            "detector": self.detector,
            "notes": self.notes,
            "states": STATES,
            "views": [[name, VIEWS[name], count] for name, count in views.items() if count],
            "clips": self.listing.clips,
            "scores": self.listing.scores,
            "counts": self.answers.counts(),
            "audit": self.audit.counts(),
            "undo": len(self._steps),
            "rerank": {"state": ranking.state, "reason": ranking.reason},
            "out": str(self.out),
        }

    def listed(self, view: str, wanted: Filter, offset: int, count: int) -> dict[str, Any]:
        """Return ``count`` pictures of a view from ``offset`` on, and how many there are.

        Raises:
            UserError: for an unknown view.
        """
        if view not in VIEWS:
            raise unknown_name("view", view, VIEWS)
        rows = self._in_view(view)
        if view == "audit":  # where a picture stands in the list must not be seen, nor asked for
            wanted = Filter(words=wanted.words)
        kept = [row for row in rows if wanted.holds(row)]
        offset, count = max(0, offset), min(max(0, count), MOST)
        shown = kept[offset : offset + count]
        items = [self.item(self._number[row.name], view == "audit") for row in shown]
        return {"of": len(rows), "total": len(kept), "offset": offset, "items": items}

    def _in_view(self, view: str) -> Sequence[Row]:
        if view == "all":
            return self.listing.rows
        if view == "chosen":
            return self.listing.chosen
        names = {"ask": self.ask, "answered": self.answers.names[::-1], "audit": self.audit.names}
        return [self.listing.by_name[name] for name in names[view]]

    def item(self, number: int, audit: bool) -> dict[str, Any]:
        """Return what is known of a picture; in an audit, nothing of its place in the list."""
        name = self.names[number]
        row = self.listing.by_name[name]
        answer = (self.audit if audit else self.answers).get(name)
        about = {
            "number": number,
            "name": name,
            "clip": row.clip,
            "size": self.pictures.size(number),
            "answer": None if answer is None else answer.word,
            "boxes": [] if answer is None else answer.boxes,
        }
        if audit:
            return about
        score, percentile = (
            None if math.isnan(value) else value for value in (row.score, row.percentile)
        )
        place = {"rank": row.rank, "score": score, "percentile": percentile, "like": row.like}
        return {**about, **place, "state": row.state, "box": row.box}

    def answer(
        self, number: int, audit: bool, rare: bool | None, boxes: Sequence[Sequence[float]] = ()
    ) -> None:
        """Keep an answer; ``None`` takes it back.

        Raises:
            UserError: for a picture that is not there, boxes that do not fit or are not of a yes,
                or a sheet that another program has changed.
            OSError: if it cannot be saved.
        """
        if not 0 <= number < len(self.names):
            raise UserError(
                "number",
                expected=f"a picture from 0 to {len(self.names) - 1}",
                got=number,
                remedy="Load the page again.",
            )
        name = self.names[number]
        if audit and name not in self.audit.names or boxes and (audit or not rare):
            raise UserError(
                name,
                expected="a picture of the audit sheet, or boxes of a yes in the list",
                got="another one",
                remedy="Load the page again.",
            )
        given = None if rare is None else Answer(rare, self._checked(number, boxes))
        sheet = self.audit if audit else self.answers
        before = sheet.get(name)
        if before != given:
            sheet.put(name, given)
            self._steps.append(_Step(number, audit, before))

    def _checked(self, number: int, boxes: Sequence[Sequence[float]]) -> tuple[Any, ...]:
        if not boxes:
            return ()
        try:
            path = self.pictures.path(number)
        except NotShown as error:
            remedy = "Answer with yes or no alone."
            raise UserError(
                self.names[number], expected="a picture", got=str(error), remedy=remedy
            ) from error
        return tuple(checked_box(box, path, self.names[number]) for box in boxes)

    def undo(self) -> _Step | None:
        """Take the last answer back, and return what it was of; ``None`` = there was none.

        Raises:
            UserError, OSError: as ``answer``; nothing has changed then.
        """
        if not self._steps:
            return None
        step = self._steps[-1]
        (self.audit if step.audit else self.answers).put(self.names[step.number], step.before)
        return self._steps.pop()

    def take(self, made: Made) -> int:
        """Show a list that was made again; return how many of its scenes are new."""
        before = {row.name for row in self.listing.chosen}
        # A picture that is new in the data has no number, and waits for the next start.
        rows = [row for row in rows_of(made.records) if row.name in self._number]
        there = {row.name for row in rows}
        gone = [row for row in self.listing.rows if row.name not in there]
        self.listing = Listing([*rows, *gone])
        self.detector, self.ask = made.detector, [n for n in made.ask if n in self._number]
        self.pictures.set_levels(self.reranking.levels)
        return sum(row.name not in before for row in self.listing.chosen)


def _names_in(path: Path, known: Any) -> list[str]:
    try:
        return [row["path"] for _, row in read_csv(path, ("path",)) if row["path"] in known]
    except UserError:  # none was written, or it is no longer ours
        return []
