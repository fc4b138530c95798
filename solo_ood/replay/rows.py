"""Which samples of a data set are meant by indexes and paths."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from solo_ood.errors import UserError


def rows_by_name(
    given: Sequence[int | str],
    size: int,
    paths: Sequence[str | Path] | None = None,
    key: str = "ood.scorer.exemplars",
) -> list[int]:
    """Return the rows of a data set that indexes and paths name, each once.

    Args:
        given: indexes in [0, size), and paths: one that ends like exactly one of ``paths``.
        size: number of samples.
        paths: of the samples; ``None`` if they have none.
        key: what the user calls them, for errors.

    Raises:
        UserError: for one that is not in the data, or a path that fits more than one sample.
    """
    rows = [_row(exemplar, size, paths, key) for exemplar in given]
    return sorted(set(rows))


def _row(exemplar: int | str, size: int, paths: Sequence[str | Path] | None, key: str) -> int:
    if isinstance(exemplar, int):
        if 0 <= exemplar < size:
            return exemplar
        expected, got = f"an index from 0 to {size - 1}", str(exemplar)
        remedy = "Indexes count the training samples in the data set's own order."
    elif paths is None:
        expected, got = "an index", "a path, and this data set has none"
        remedy = "Give dataset indexes."
    else:
        # As absolute paths, so that the data's folder may have been given relative to here.
        parts = Path(os.path.expanduser(exemplar)).parts
        found = [
            row
            for row, path in enumerate(paths)
            if parts[-1:] == (Path(path).name,)  # "" and "." have no parts
            and Path(path).absolute().parts[-len(parts) :] == parts
        ]
        if len(found) == 1:
            return found[0]
        expected, got = "the path of 1 training image", f"{len(found)} that end like it"
        remedy = "Give more of its path, or its dataset index."
    raise UserError(f"{key}, {exemplar!r}", expected=expected, got=got, remedy=remedy)


def paths_of(dataset: Any) -> list[str | Path] | None:
    """Return the image paths of an ImageFolder or of solo-learn's folder without classes.

    ``None`` for data sets that have none, or keep something else under these names.
    """
    try:
        if hasattr(dataset, "samples"):
            return [path for path, _ in dataset.samples]
        if hasattr(dataset, "root") and hasattr(dataset, "images"):
            return [Path(dataset.root) / name for name in dataset.images]
    except (TypeError, ValueError):
        pass
    return None
