"""Class folders that torchvision's ImageFolder reads, as the host does: as they are meant?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from solo_ood.data.folders import class_folders, has_splits, some, splits_of
from solo_ood.data.names import is_litter, split_of
from solo_ood.data.tree import may_be_image, walk
from solo_ood.errors import UserError


def check_training_folder(path: Path, key: str, no_labels: bool = False) -> None:
    """Raise ``UserError`` for what torchvision's ImageFolder, as in the host, would misread.

    It takes every folder for a class. A folder without class folders is left to others.

    Args:
        path: an ImageFolder.
        key: the setting, option or argument that names it.
        no_labels: the host opens whatever lies in ``path``.
    """
    if no_labels:
        with os.scandir(path) as entries:
            wrong = [
                entry.name
                for entry in entries
                if is_litter(entry.name) or entry.is_dir() or not may_be_image(entry.name)
            ]
        _check_no_litter(path, key, sorted(wrong))
        return
    tree = walk(path)
    _check_no_litter(
        path, key, ["/".join(parts) for paths in tree.skipped.values() for parts in paths]
    )
    inner = tree
    while len(inner.folders) == 1:
        below = inner.below(inner.folders[0])
        if not below.folders or not (split_of(inner.folders[0]) or has_splits(below)):
            break  # all images in one folder is how data without labels are given
        inner = below
    remedy = "Give a folder that holds a folder of images for each class."
    try:
        found = splits_of(inner) if len(inner.folders) > 1 else None
        if found is None and inner is tree:
            if len(tree.folders) > 1:
                class_folders(tree)
            return
    except UserError as error:
        got = f"{error.got}, in {inner.root}"
        raise UserError(key, expected=error.expected, got=got, remedy=remedy) from error
    wanted = inner
    if found is not None:
        fit_name, test_name, _ = found
        wanted = inner.below(test_name if key == "data.val_path" else fit_name)
    flat = "" if wanted.folders else " data.no_labels=True"
    raise UserError(
        key,
        expected="class folders: every folder is taken for a class",
        got=f"{path}, with {some(tree.folders)}, which are no classes",
        remedy=f"Set {key}={wanted.root}{flat}." if "." in key else f"Give {wanted.root}.",
    )


def _check_no_litter(path: Path, key: str, names: Sequence[str]) -> None:
    if names:
        raise UserError(
            key,
            expected="images and nothing else: whatever is there is read",
            got=f"{some(names)} in {path}, hidden or not part of the data",
            remedy="Remove or move it.",
        )
