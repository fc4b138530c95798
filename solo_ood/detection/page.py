"""One self-contained HTML page: text, tables and pictures, without scripts or other files."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape as escape_html
from pathlib import Path

from solo_ood.text import printable

_INTERVAL = re.compile(r"^(-?[\d.]+) (\[-?[\d.]+, -?[\d.]+\])$")
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1250px; padding: 0 1em;
  color: #222; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2em; border-bottom: 1px solid #ccc; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 12.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 2px 6px; text-align: right; white-space: nowrap; }
th { background: #f3f3f3; position: sticky; top: 0; }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; white-space: normal; }
td small { display: block; color: #555; }
tr:nth-child(even) td { background: #fafafa; }
img { max-width: 100%; } figure { margin: 1em 0; } figcaption { color: #555; font-size: 13px; }
pre { background: #f6f6f6; padding: .6em; white-space: pre-wrap; }
"""


class Page:
    """Collects the parts of a page, in order.

    Args:
        title: of the page.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """Add a heading."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def listing(self, lines: Sequence[str]) -> None:
        """Add a list of facts."""
        items = "".join(f"<li>{escape(line)}</li>" for line in lines)
        self._parts.append(f"<ul>{items}</ul>")

    def code(self, text: str) -> None:
        """Add a command."""
        self._parts.append(f"<pre>{escape(text)}</pre>")

    def table(self, markdown: str) -> None:
        """Add a Markdown table without inline markup."""
        head, _, *body = [
            [cell.strip() for cell in line.strip().strip("|").split("|")]
            for line in markdown.strip().splitlines()
        ]
        rows = [_cells("th", head), *(_cells("td", row) for row in body)]
        self._parts.append(f'<div class="wide"><table>{"".join(rows)}</table></div>')

    def picture(self, path: Path, caption: str) -> None:
        """Add the PNG or JPEG at ``path``, embedded."""
        data = base64.b64encode(path.read_bytes()).decode()
        kind = "jpeg" if path.suffix == ".jpg" else "png"
        self._parts.append(
            f'<figure><img alt="{escape(caption)}" src="data:image/{kind};base64,{data}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def save(self, path: Path) -> Path:
        """Write the page."""
        head = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head><body>"
        )
        path.write_text("\n".join([head, *self._parts, "</body></html>\n"]), encoding="utf-8")
        return path


def escape(text: str) -> str:
    """Return ``text`` as HTML, without what UTF-8 cannot hold."""
    return escape_html(printable(text))


def _cells(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{_cell(cell)}</{tag}>" for cell in cells) + "</tr>"


def _cell(text: str) -> str:
    """Return the text; an interval on a line of its own, so that wide tables fit the page."""
    return _INTERVAL.sub(r"\1 <small>\2</small>", escape(text))
