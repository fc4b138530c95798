"""What a study prints: the main differences in 80 columns; the files have all of them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from solo_ood.study.plan import Study
from solo_ood.study.table import PROBES, Results, Row, difference_text, replay_rows

_WIDTH = 80
_NAME = 16  # columns of an arm's name; a longer one has a line of its own
_SHOWN = ("All", "Few")
_REPLAY = ("flagged, %", "lift", "distinct", "replays each")


def text(study: Study, results: Results, rows: Sequence[Row]) -> str:
    """Return the differences on All and Few classes, and what was replayed."""
    lines = textwrap.wrap(study.about, _WIDTH)
    missing = len(study.cells) - len(results)
    if missing:
        lines.append(f"{missing} of {len(study.cells)} cells are missing.")
    for probe, name in PROBES.items():
        for against in study.against:
            own = [row for row in rows if (row.probe, row.against) == (probe, against)]
            if own:
                title = f"{name}: points above {against} [95 % interval], p corrected by Holm"
                lines += ["", *textwrap.wrap(title, _WIDTH)]
                lines += _differences(own)
    replayed = replay_rows(study, results)
    if replayed:
        lines += ["", f"{'':<{_NAME}}" + "".join(f"{head:>14}" for head in _REPLAY)]
        for names, cells in replayed:
            lines += _named(names, "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)


def _differences(rows: Sequence[Row]) -> Iterator[str]:
    yield f"{'':<{_NAME}}{'n':>4}  {_SHOWN[0]:<29}{_SHOWN[1]}"
    for arm in dict.fromkeys((row.budget, row.arm) for row in rows):
        own = {row.group: row for row in rows if (row.budget, row.arm) == arm}
        n = max(row.difference.n for row in own.values())
        cells = [difference_text(own[group]) if group in own else "–" for group in _SHOWN]
        yield from _named(arm, f"{n:>4}  {cells[0]:<29}{cells[1]}")


def _named(names: Sequence[str], line: str) -> list[str]:
    """Return the line after the budget and arm that it is of, above it if they are long."""
    name = ", ".join(filter(None, names))
    if len(name) < _NAME:
        return [f"{name:<{_NAME}}{line}"]
    return [*textwrap.wrap(name, _WIDTH), f"{'':<{_NAME}}{line}"]
