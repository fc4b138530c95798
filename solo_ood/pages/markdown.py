"""The one writer of Markdown tables: every cell stays in its column, whatever its text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from solo_ood.files.text import printable

_BAR = re.compile(r"(\\*)\|")


def table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in GitHub's Markdown, without a line break at its end.

    Args:
        heads: C names of columns.
        rows: each of C cells, shown as ``str`` shows them; inline markup in them is kept.
    """
    return "\n".join([head(heads), *(row(cells) for cells in rows)])


def head(heads: Sequence[object]) -> str:
    """Return the two lines above the rows, for a table that is printed while it is made."""
    return f"{row(heads)}\n{'|---' * len(heads)}|"


def row(cells: Sequence[object]) -> str:
    """Return one line."""
    return f"| {' | '.join(_escaped(str(cell)) for cell in cells)} |"


def _escaped(text: str) -> str:
    r"""Return ``text`` without what would end its cell or its line.

    ``a|b`` becomes ``a\|b``; backslashes before a bar are doubled, or they would free it again.
    """
    return _BAR.sub(r"\1\1\\|", printable(text))
