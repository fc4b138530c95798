"""The labelled images of an evaluation: reference, validation, and what defines the groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from solo_ood.data.images import Split, read_splits
from solo_ood.errors import UserError
from solo_ood.selection.classes import class_groups


@dataclass(frozen=True)
class Labelled:
    """Images of one label each.

    Attributes:
        path: the ImageFolder or CSV.
        split: the images.
        targets: (N,) int64, class ids of the reference.
    """

    path: Path
    split: Split
    targets: np.ndarray

    def keep(self, split: Split) -> Labelled:
        """Return those images that are in ``split``, a part of this one's."""
        rows = {file: row for row, file in enumerate(self.split.paths)}
        return Labelled(self.path, split, self.targets[[rows[file] for file in split.paths]])

    def facts(self) -> dict[str, Any]:
        """Return the data that accompany every figure."""
        return facts(self.path, len(self.targets), len(np.unique(self.targets)))


def facts(path: str | Path, images: int, classes: int) -> dict[str, Any]:
    """Return which data a figure is of: the whole path, and how many images and classes."""
    return {"path": str(Path(path).resolve()), "images": images, "classes": classes}


def describe_data(data: dict[str, Any]) -> str:
    """Return ``facts`` as a text."""
    return f"{data['images']:,} images of {data['classes']} classes in {data['path']}"


def read(path: Path, what: str, classes: Sequence[str] | None = None) -> Labelled:
    """Return the images of an ImageFolder or CSV.

    Args:
        path: the folder of the class folders, one that has ``train`` and ``val`` below it, or a CSV
            of path,label[,split].
        what: ``train``, ``val`` or ``tail``: the option's name, and which split is meant.
        classes: those of the reference, by whose place in this list the ids count; ``None`` for the
            reference itself.

    Raises:
        UserError: for data without labels, images with several, or classes that the reference
            does not have.
    """
    fit, test = read_splits(path)
    split = test if what == "val" and test is not None else fit
    if split.by_pixels:
        raise UserError(
            f"--{what}",
            expected="images of one label each: class folders, or a CSV of path,label",
            got=f"{path}, whose labels are masks",
            remedy="k-NN and linear evaluation are for classification.",
        )
    if split.several_labels.any():
        raise UserError(
            f"--{what} {path}",
            expected="images of one label each",
            got=f"{int(split.several_labels.sum())} of {len(split)} with several",
            remedy="Leave out these images, or all of their labels but one.",
        )
    unknown = sorted(set(split.classes) - set(classes or split.classes))
    if unknown:
        raise UserError(
            f"--{what} {path}",
            expected="no classes but those of --train",
            got=f"{len(unknown)} others, such as {unknown[0]}",
            remedy="Give two folders of the same data set.",
        )
    names = list(classes or split.classes)
    ids = np.array([names.index(name) for name in split.classes])
    return Labelled(path.resolve(), split, ids[split.labels])


def groups_by(tail: Labelled, reference: Labelled) -> dict[str, list[int]]:
    """Return the class ids of Many, Medium and Few by how many images ``tail`` has of each class.

    Raises:
        UserError: if it has not all classes of the reference.
    """
    missing = set(np.unique(reference.targets)) - set(np.unique(tail.targets))
    if missing:
        names = sorted(reference.split.classes[label] for label in missing)
        raise UserError(
            f"--tail {tail.path}",
            expected="images of every class of --train, whose counts define Many, Medium and Few",
            got=f"none of {', '.join(names[:5])}",
            remedy="Give the long-tailed training folder.",
        )
    return class_groups(tail.targets)
