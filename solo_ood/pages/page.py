"""One self-contained HTML page from a template: text, tables and pictures, offline in one file.

Everything that is shown is escaped by the template, and the page's Content-Security-Policy lets no
script run but its own and no address be asked, so that foreign names stay names.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from solo_ood.files.text import printable
from solo_ood.pages import glossary
from solo_ood.pages.parts import Gallery, Picture, Scatter, Table

TEMPLATES = Path(__file__).parent / "templates"


@dataclass
class _Block:
    kind: str
    content: Any


@dataclass
class _Section:
    title: str = ""
    blocks: list[_Block] = field(default_factory=list)


class Page:
    """Collects the parts of a page, in order.

    Args:
        title: of the page.
        conclusion: what a reader should take away, in three lines; () = none.
        terms: what the glossary explains, see ``glossary.TERMS``.
    """

    def __init__(
        self, title: str, conclusion: Sequence[str] = (), terms: Sequence[str] = ()
    ) -> None:
        self.title = title
        self.conclusion = conclusion
        self.terms = terms
        self._sections = [_Section()]

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._sections.append(_Section(text))

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._add("text", text)

    def listing(self, lines: Sequence[str]) -> None:
        """Add a list of facts."""
        self._add("listing", lines)

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Add facts with their names."""
        self._add("facts", facts)

    def code(self, text: str) -> None:
        """Add a command."""
        self._add("code", text)

    def table(self, table: Table) -> None:
        """Add a table that sorts and filters."""
        self._add("table", table)

    def picture(self, path: Path, caption: str) -> None:
        """Add the PNG or JPEG at ``path``, embedded."""
        kind = "jpeg" if path.suffix == ".jpg" else "png"
        self._add("picture", Picture(_data_uri(path.read_bytes(), kind), caption))

    def gallery(self, gallery: Gallery) -> None:
        """Add thumbnails."""
        self._add("gallery", gallery)

    def scatter(self, scatter: Scatter) -> None:
        """Add points that say what they are."""
        self._add("scatter", scatter)

    def _add(self, kind: str, content: Any) -> None:
        self._sections[-1].blocks.append(_Block(kind, content))

    def html(self) -> str:
        """Return the page."""
        script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
        digest = hashlib.sha256(script.encode()).digest()
        return (
            _templates()
            .get_template("page.html")
            .render(
                title=self.title,
                conclusion=self.conclusion,
                sections=self._sections,
                terms=glossary.terms_of(self.terms),
                style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
                script=Markup(script),
                script_hash=f"sha256-{base64.b64encode(digest).decode()}",
            )
        )

    def save(self, path: Path) -> Path:
        """Write the page."""
        path.write_text(self.html(), encoding="utf-8", newline="\n")
        return path


def jpeg_uri(image: Image.Image) -> str:
    """Return an image as the source of an ``<img>``, compressed as a photograph."""
    file = BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=80)
    return _data_uri(file.getvalue(), "jpeg")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )


def _printable(value: Any) -> Any:
    """Return text without what UTF-8 cannot hold; what the templates made is left as it is."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
