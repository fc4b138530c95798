"""An audit of a list: images drawn by a stratified design, a sheet to fill in, and what it says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from solo_ood.data.frames import Frames
from solo_ood.errors import UserError
from solo_ood.evaluation.ranking import Interval
from solo_ood.files.text import printable
from solo_ood.mining.estimates import Stratum, estimate
from solo_ood.mining.output import csv_of
from solo_ood.mining.ranking import Entry, Ranking
from solo_ood.mining.sheets import is_filled, read_answers

SHEET, DESIGN = "audit.csv", "audit.json"
LEAST = 10  # audited images of a part of the list, to tell its precision


@dataclass(frozen=True)
class Drawn:
    """An audit that is to be made.

    Attributes:
        entries: the images, in random order: where they stand in the list must not be seen.
        listed: how many of the list itself were drawn from.
        others: images with a rank that are not on it.
    """

    entries: list[Entry]
    listed: int
    others: int


def draw(ranking: Ranking, count: int, seed: int) -> Drawn:
    """Draw images to look at: half of them from the list, half from the other ranked images.

    Near-duplicates of listed images have no rank, and are no part of what is audited: who has one
    of a scene has found it.
    """
    listed = ranking.chosen
    others = [entry for entry in ranking.entries if entry.state == "further"]
    rng = np.random.default_rng(seed)
    on_list = min(len(listed), max(count - len(others), (count + 1) // 2))
    beside = min(len(others), count - on_list)
    drawn = [listed[i] for i in rng.choice(len(listed), on_list, replace=False)]
    drawn += [others[i] for i in rng.choice(len(others), beside, replace=False)]
    return Drawn([drawn[i] for i in rng.permutation(len(drawn))], len(listed), len(others))


def check_sheet(out: Path) -> None:
    """Raise ``UserError`` rather than write over a sheet that was filled in."""
    if is_filled(out / SHEET):
        raise UserError(
            "--audit",
            expected=f"no filled sheet at {out / SHEET}",
            got="one with answers",
            remedy="Read it with --audited, or move it, before you draw another.",
        )


def write_sheet(drawn: Drawn, ranking: Ranking, frames: Frames, folder: Path) -> None:
    """Write the sheet, and beside it the design that its answers are read by."""
    paths = [frames.name(entry.path) for entry in drawn.entries]
    rows = [{"path": path, "rare": ""} for path in paths]
    (folder / SHEET).write_bytes(csv_of(rows, ["path", "rare"]))
    design = {
        "listed": drawn.listed,
        "others": drawn.others,
        "list": digest(ranking, frames),
        "ranks": {path: entry.rank for path, entry in zip(paths, drawn.entries)},
    }
    (folder / DESIGN).write_text(json.dumps(design, indent=1) + "\n", encoding="utf-8")


def digest(ranking: Ranking, frames: Frames) -> str:
    """Return a name for the chosen images in their order."""
    names = "\n".join(frames.name(entry.path) for entry in ranking.chosen)
    return hashlib.sha256(names.encode()).hexdigest()[:16]


def read_audit(
    sheet: Path, out: Path, ranking: Ranking, frames: Frames, row_of: Callable[[str, str], int]
) -> list[str]:
    """Return what a filled sheet says of the list, in lines.

    Args:
        sheet: as it was filled in.
        out: where the ranking was written, if the design is not beside the sheet.
        ranking: as it is now.
        frames: its images.
        row_of: finds the row of a path.

    Raises:
        UserError: for other paths than were drawn, other words than yes and no, or lines without.
    """
    design = _design(sheet, out)
    answers = read_answers([sheet], frames.paths, row_of).rare
    ranks = {row_of(path, DESIGN): int(rank) for path, rank in design["ranks"].items()}
    strange = [row for row in answers if row not in ranks]
    lacking = [row for row in ranks if row not in answers]
    if strange or lacking:
        first = frames.name(frames.paths[(strange or lacking)[0]])
        raise UserError(
            sheet.name,
            expected=f"yes or no for each of the {len(ranks)} images that were drawn",
            got=f"{first}, which was not drawn"
            if strange
            else f"{len(lacking)} without an answer, such as {first}",
            remedy="Fill in all lines: who leaves out the hard ones changes the estimates.",
        )
    rare_at = sorted((ranks[row], rare) for row, rare in answers.items())
    lines = _lines(rare_at, design["listed"], design["others"])
    if design["list"] != digest(ranking, frames):
        lines.append("(the audit is of an earlier list, which differs from this one)")
    return lines


def _design(sheet: Path, out: Path) -> Any:
    for folder in (sheet.parent, out):
        try:
            return json.loads((folder / DESIGN).read_text(encoding="utf-8"))
        except OSError:
            continue
        except ValueError as error:
            raise UserError(
                str(folder / DESIGN),
                expected="the design that --audit wrote",
                got=str(error),
                remedy="Draw the audit again.",
            ) from error
    raise UserError(
        "--audited",
        expected=f"{DESIGN}, the design of the audit, beside the sheet or in --out",
        got="none",
        remedy="Draw an audit with --audit N first, and fill in its sheet.",
    )


def _lines(rare_at: list[tuple[int, bool]], listed: int, others: int) -> list[str]:
    """Return the estimates in words; ``rare_at`` has the rank of each audited image."""
    on_list = [(rank, rare) for rank, rare in rare_at if rank <= listed]
    beside = [rare for rank, rare in rare_at if rank > listed]
    found = estimate(
        Stratum(listed, len(on_list), sum(rare for _, rare in on_list)),
        Stratum(others, len(beside), sum(beside)),
    )
    lines = [
        f"audit of {len(rare_at)} of {listed + others:,} images, {len(on_list)} of them listed; "
        "[95 % intervals]",
        f"precision of the {listed:,} listed: {_text(found.precision)}; of random picks: "
        f"{_text(found.prevalence)} (the prevalence)",
    ]
    for part in _parts(listed):
        inner = [rare for rank, rare in on_list if rank <= part]
        if len(inner) >= LEAST:
            top = estimate(Stratum(part, len(inner), sum(inner)), Stratum(0, 0, 0))
            lines.append(f"precision of the first {part:,}: {_text(top.precision)}")
    lines.append(f"lift: {_text(found.lift)}; of random picks: 1")
    lines.append(
        f"recall: {_text(found.recall)} of the rare scenes are listed; by as many random picks: "
        f"{found.random_recall:.3f}"
    )
    return lines


def _parts(listed: int) -> list[int]:
    return sorted({part for part in (listed // 10, listed // 4, listed // 2) if part})


def _text(value: Interval) -> str:
    return printable(f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]")
