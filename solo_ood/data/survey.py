"""Survey of a data set from image headers: shapes, bit depths, and what will be changed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from solo_ood.data.pixels import Header, Levels, Unreadable, header, load_deep

MAX_HEADERS = 10_000  # of a larger data set as many, evenly spread
MAX_DEEP = 100  # images of more than 8 bits that are decoded to find their range
BITS = (8, 10, 12, 14, 16)  # of cameras
CUT = 0.2  # share of an image's area whose loss is noted


@dataclass(frozen=True)
class Survey:
    """What a data set holds.

    Attributes:
        sizes: of each group (N, 2), height and width (pixels) of the images that can be read, as
            they are shown.
        levels: black and white of those with more than 8 bits.
        notes: what is done to images that are not shown as they are stored.
        has_deep: whether there are some with more than 8 bits; then the first note is of these.
        as_stored: what others see of these images, who read the pixels as they are stored.
    """

    sizes: list[np.ndarray]
    levels: Levels
    notes: list[str]
    has_deep: bool
    as_stored: list[str]


def survey(*groups: Sequence[Path]) -> Survey:
    """Look at the headers of these images, and into some of those with more than 8 bits."""
    looked = [evenly_spaced(paths, MAX_HEADERS) for paths in groups]
    with ThreadPoolExecutor() as pool:
        headers = [[info for info in pool.map(_header_or_none, paths) if info] for paths in looked]
    sizes = [np.array([(info.height, info.width) for _, info in group]) for group in headers]
    total = sum(map(len, looked))
    every = [pair for group in headers for pair in group]
    deep = [path for path, info in every if info.deep]
    levels, notes = _levels(deep, total)
    has_deep = bool(notes)
    transparent = sum(info.transparent for _, info in every)
    turned = sum(info.orientation > 1 for _, info in every)
    several = sum(info.several for _, info in every)
    for many, what in (
        (transparent, "transparent: what shows through is white"),
        (turned, "stored turned: shown as a viewer does"),
        (several, "of several pictures or pages: the first is taken"),
    ):
        if many:
            notes.append(f"{many} of {total} images are {what}")
    as_stored = [
        f"{many} of {total} images are {what}"
        for many, what in (
            (transparent, "transparent: what is below counts"),
            (turned, "stored turned, and stay so"),
        )
        if many
    ]
    return Survey(sizes, levels, notes, has_deep, as_stored)


def most_frequent(sizes: np.ndarray) -> tuple[int, int]:
    """Return the row that most of ``sizes`` (N, 2) share; of several, the most usual shape."""
    rows, counts = np.unique(sizes, axis=0, return_counts=True)
    rows = rows[counts == counts.max()]
    usual = np.median(np.log(sizes[:, 1] / sizes[:, 0]))
    height, width = rows[np.abs(np.log(rows[:, 1] / rows[:, 0]) - usual).argmin()]
    return int(height), int(width)


def cut_note(sizes: np.ndarray, size: tuple[int, int]) -> list[str]:
    """Return what it costs to cut images of ``sizes`` (N, 2) to the shape of ``size``."""
    if not len(sizes):
        return []
    shapes, shape = sizes[:, 1] / sizes[:, 0], size[1] / size[0]
    lost = 1 - np.minimum(shapes, shape) / np.maximum(shapes, shape)
    many = int((lost > CUT).sum())
    if not many:
        return []
    return [
        f"{many} of {len(sizes)} images lose more than {CUT:.0%} of their area, cut to the middle "
        f"of {size[0]} x {size[1]} pixels (up to {lost.max():.0%})"
    ]


def _header_or_none(path: Path) -> tuple[Path, Header] | None:
    try:
        return path, header(path)
    except Unreadable:  # counted where it is embedded
        return None


def _levels(deep: Sequence[Path], total: int) -> tuple[Levels, list[str]]:
    """Return one range for all: scaled one by one, images could not be compared."""
    ranges: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for path in evenly_spaced(deep, MAX_DEEP):
        with suppress(Unreadable):
            values = load_deep(path)
            finite = values[np.isfinite(values)]
            if finite.size:
                is_float = values.dtype.kind == "f"
                ranges[is_float].append((float(finite.min()), float(finite.max())))
    levels, texts = Levels(), []
    if ranges[False]:
        low, high = _range(ranges[False])
        whites = [2.0**bits - 1 for bits in BITS if high < 2**bits]
        known = low >= 0 and whites
        levels = Levels((0, whites[0]) if known else (low, high), levels.floating)
        texts.append("{:g} is black, {:g} white".format(*levels.integer))
    if ranges[True]:
        low, high = _range(ranges[True])
        fits = next((limit for limit in (1, 255) if low >= 0 and high <= limit), None)
        levels = Levels(levels.integer, (0, fits) if fits else (low, high))
        texts.append("{:g} is black, {:g} white (floating point)".format(*levels.floating))
    notes = [f"{len(deep)} of {total} images have more than 8 bits: in all {' and '.join(texts)}"]
    return levels, notes if texts else []


def _range(ranges: Sequence[tuple[float, float]]) -> tuple[float, float]:
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    return low, max(high, low + 1e-6)


def evenly_spaced(paths: Sequence[Path], most: int) -> list[Path]:
    """Return at most so many of the paths, evenly spread."""
    if len(paths) <= most:
        return list(paths)
    return [paths[row] for row in np.linspace(0, len(paths) - 1, most).astype(int)]
