"""The order in which a person counts files: frame_2 before frame_10."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

_DIGITS = re.compile(r"(\d+)")  # of any script, all of which `int` reads


def natural_key(path: PurePath | str) -> tuple[Any, ...]:
    """Return a key that sorts paths folder by folder, digits in their names by their value.

    A suffix counts last: ``frame 2`` comes before its copy ``frame 2 (1)``. Names that differ in
    leading zeros only follow each other in the order of their text.
    """
    path = PurePath(path)
    names = (*path.parts[:-1], path.stem, path.suffix)
    return tuple(_name_key(name) for name in names), path.parts


def _name_key(name: str) -> tuple[Any, ...]:
    # Text and digits in turn, so that each is compared with its like.
    return tuple(int(part) if part.isdecimal() else part for part in _DIGITS.split(name))
