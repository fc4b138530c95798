"""Files and their labels; rows or links that name the same picture are merged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from solo_ood.data.names import normalise_name
from solo_ood.errors import UserError


@dataclass(frozen=True)
class Labelled:
    """Files of a split, each once.

    Attributes:
        paths: N files, as they were named first.
        labels: of each file, in the order in which they were given.
    """

    paths: tuple[Path, ...]
    labels: tuple[tuple[str, ...], ...]


def merge_labels(rows: Iterable[tuple[Path, str]]) -> Labelled:
    """Return each file once, with the labels of all its rows, cleaned (see ``normalise_name``)."""
    paths: dict[object, Path] = {}
    labels: dict[object, dict[str, None]] = {}
    for path, label in rows:
        key = file_key(path)
        paths.setdefault(key, path)
        labels.setdefault(key, {})[normalise_name(label)] = None
    return Labelled(tuple(paths.values()), tuple(map(tuple, labels.values())))


def file_key(path: Path) -> object:
    """Return what is the same for all names of a file: relative or not, by links of either kind."""
    try:
        status = os.stat(path)
        if status.st_nlink > 1:
            # Only then: the numbers that mounted network storage makes up may come again.
            return status.st_dev, status.st_ino
    except (OSError, ValueError):
        pass  # a file that is missing has a path all the same
    return os.path.realpath(path)


def case_note(classes: Sequence[str]) -> list[str]:
    """Return a note of classes whose names differ in nothing but case."""
    by_fold: dict[str, list[str]] = {}
    for name in classes:
        by_fold.setdefault(name.casefold(), []).append(name)
    alike = [" and ".join(names) for names in by_fold.values() if len(names) > 1]
    return [f"{', '.join(alike)} are taken for different classes"] if alike else []


def check_no_leak(
    what: str, fit: Sequence[Path], test: Sequence[Path], notes: Sequence[str]
) -> None:
    """Raise ``UserError`` for pictures that are in both splits.

    Args:
        what: the data.
        fit: files to fit on.
        test: files to test on.
        notes: what else is known of the data, for the message.
    """
    known = {file_key(path) for path in fit}
    both = [path for path in test if file_key(path) in known]
    if both:
        names = ", ".join(path.name for path in both[:3]) + ", …" * (len(both) > 3)
        known_too = "".join(f"; {note}" for note in notes)
        raise UserError(
            f"{what}, a leak between the splits",
            expected="no picture in both",
            got=f"{len(both)} of {len(test)} test pictures that are in the fit split, too "
            f"({names}){known_too}",
            remedy="Give each picture one split, or leave the test split out with --cross-fit.",
        )
