"""What a page is made of beside text: tables, pictures, thumbnails, and points in a plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from solo_ood.files.text import printable
from solo_ood.pages import glossary

Mark = tuple[float, float, float, float]  # left, top, width and height in % of an image


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its head.
        number: whether its cells are sorted by their values, the highest first.
        filter: whether a reader can choose one of its values.
    """

    name: str
    number: bool = False
    filter: bool = False

    @property
    def about(self) -> str:
        """What the name means; "" where the glossary has none of it."""
        return glossary.TERMS.get(self.name, "")


class Cell(NamedTuple):
    """A cell: its text, a second line such as an interval, and what it is sorted by."""

    text: str
    small: str = ""
    value: float | None = None


def number_cell(text: str, value: float | None, small: str = "") -> Cell:
    """Return a cell with a number; one that is not known is sorted to the end."""
    known = value is not None and not math.isnan(value)
    return Cell(text, small, value if known else None)


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by every column and filtered by words and some columns' values."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    def values(self, column: Column) -> list[str]:
        """Return the texts in a column, each once, in their order."""
        number = list(self.columns).index(column)
        return list(dict.fromkeys(printable(row[number].text) for row in self.rows))


@dataclass(frozen=True)
class Picture:
    """A figure: a ``data:`` address and what it shows."""

    source: str
    caption: str


@dataclass(frozen=True)
class Thumbnail:
    """A thumbnail that can be enlarged.

    Attributes:
        key: of the image; a page holds each image once.
        source: a ``data:`` address; "" where the page has shown the image before.
        path: of the file.
        caption: what is in it.
        score: as a text; "" = none.
        rare: whether it is framed as rare.
        marks: where in it what matters is.
    """

    key: str
    source: str
    path: str
    caption: str
    score: str = ""
    rare: bool = False
    marks: Sequence[Mark] = ()


@dataclass(frozen=True)
class Gallery:
    """Thumbnails under a title."""

    title: str
    caption: str
    shots: Sequence[Thumbnail]


@dataclass(frozen=True)
class Panel:
    """Points of one network: (number in ``Scatter.about``, x, y, whether rare), rare ones last."""

    title: str
    points: Sequence[tuple[int, float, float, bool]]


@dataclass(frozen=True)
class Scatter:
    """Points that tell their image when one points at them.

    Attributes:
        panels: one for each network.
        axes: names of the two axes, with their units.
        about: of each point, the key of its image and lines of text.
        rare: what the legend says of the rare points.
        others: and of the others.
        caption: below the panels.
    """

    panels: Sequence[Panel]
    axes: tuple[str, str]
    about: Sequence[tuple[str, ...]]
    rare: str
    others: str
    caption: str

    @property
    def data(self) -> list[list[str]]:
        """``about`` without what UTF-8 cannot hold, for the page's script."""
        return [[printable(text) for text in texts] for texts in self.about]

    @property
    def radius(self) -> float:
        """Of a point, in the panel's units; smaller where there are many."""
        return round(max(2.0, min(5.0, 150 / math.sqrt(max(1, len(self.about))))), 2)


def panel(title: str, points: np.ndarray, rare: np.ndarray) -> Panel:
    """Return a panel in which points (N, 2) fill the plane that the template draws."""
    low, high = points.min(axis=0), points.max(axis=0)
    shares = (points - low) / np.where(high > low, high - low, 1)
    x, y = 34 + 470 * shares[:, 0], 384 - 366 * shares[:, 1]
    order = np.argsort(rare, kind="stable")  # what is rare lies on top
    placed = ((int(i), round(float(x[i]), 1), round(float(y[i]), 1), bool(rare[i])) for i in order)
    return Panel(title, list(placed))
