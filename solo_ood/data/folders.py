"""Class folders: which folders are classes, which are splits, and which are neither."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from solo_ood.data.labels import Labelled, merge_labels
from solo_ood.data.layouts import layout_parts, layout_remedy, looks_like
from solo_ood.data.names import is_litter, look_like_splits, normalise_name, split_of, splits_among
from solo_ood.data.order import natural_key
from solo_ood.data.tree import Tree, count_text, walk
from solo_ood.errors import UserError

_CSV = "or write a CSV of path,label[,split]"


def read_folders(root: Path) -> tuple[Labelled, Labelled | None, list[str]]:
    """Return the images of class folders to fit on, those to test on, and notes.

    Raises:
        UserError: for folders that are no classes, or classes that differ between the splits.
    """
    whole = walk(root)
    tree, notes = _unwrapped(whole)
    notes = whole.notes() + notes
    found = splits_of(tree)
    if found is None:
        fit, test = _labelled(tree), None
        inner = {parts[1] for parts in tree.dirs if len(parts) > 1 and split_of(parts[1])}
        if look_like_splits(tree.folders):
            notes.append(classes_note(tree.folders))
        if inner:
            notes.append(f"read together, whatever their class: {_some(sorted(inner))}")
    else:
        fit_name, test_name, more = found
        fit_tree, fit_notes = _unwrapped(tree.below(fit_name))
        test_tree, test_notes = _unwrapped(tree.below(test_name))
        if fit_tree.folders and not test_tree.folders:  # Kaggle's: its labels are secret
            raise UserError(
                f"image folder {tree.root}",
                expected=f"class folders in {fit_name} and {test_name}",
                got=f"{len(test_tree.images_in_root)} images and no folders in {test_name}",
                remedy=f"Give {tree.root / fit_name}, {_CSV}.",
            )
        fit, test = _labelled(fit_tree), _labelled(test_tree)
        notes += more + [f"{fit_name}: {note}" for note in fit_notes]
        notes += [f"{test_name}: {note}" for note in test_notes]
        _same_classes(fit_name, fit, test_name, test)
    return (
        merge_labels(fit),
        None if test is None else merge_labels(test),
        notes + _linked(fit, test),
    )


def classes_note(names: Sequence[str]) -> str:
    """Return what to say of classes whose names look like those of splits."""
    return f"classes: {_some(names)}; if these are splits, call them train and val, or give one"


def check_training_folder(path: Path, key: str, no_labels: bool = False) -> None:
    """Raise ``UserError`` for what the host, which takes every folder for a class, would misread.

    A folder without class folders is left to others.

    Args:
        path: an ImageFolder.
        key: the setting that names it.
        no_labels: the host opens whatever lies in ``path``.
    """
    if no_labels:
        with os.scandir(path) as entries:
            wrong = [entry.name for entry in entries if is_litter(entry.name) or entry.is_dir()]
        _check_no_litter(path, key, sorted(wrong))
        return
    tree = walk(path)
    _check_no_litter(
        path, key, ["/".join(parts) for paths in tree.skipped.values() for parts in paths]
    )
    inner = tree
    while len(inner.folders) == 1:
        below = inner.below(inner.folders[0])
        if not below.folders or not (split_of(inner.folders[0]) or _has_splits(below)):
            break  # all images in one folder is how data without labels are given
        inner = below
    remedy = "Give a folder that holds a folder of images for each class."
    try:
        found = splits_of(inner) if len(inner.folders) > 1 else None
        if found is None and inner is tree:
            if len(tree.folders) > 1:
                _labelled(tree)
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
        expected="class folders: the host takes every folder for a class",
        got=f"{path}, with {_some(tree.folders)}, which are no classes",
        remedy=f"Set {key}={wanted.root}{flat}.",
    )


def splits_of(tree: Tree) -> tuple[str, str, list[str]] | None:
    """Return the names of the folders to fit and to test on, and notes; ``None``: all are classes.

    Raises:
        UserError: for splits beside classes, without class folders, or without their counterpart.
    """
    splits = splits_among(tree.folders)
    if not splits or (split_of(tree.root.resolve().name) and not _has_splits(tree)):
        return None  # in a split, `train` is a vehicle
    held = {name: tree.below(name) for name in tree.folders}
    mixed = [name for name in held if name not in splits and held[name].images_in_root]
    parts = layout_parts(list(held))
    if [name for name in mixed if name not in parts]:
        raise UserError(
            f"data {tree.root}",
            expected="class folders, or splits such as train and val with class folders in each",
            got=f"{_some(list(splits))}, by name a split, beside {_some(mixed)}",
            remedy="Move what is not meant elsewhere; if it is a class, give its folder another "
            f"name, {_CSV}.",
        )
    ranked = {
        kind: sorted(
            # What has no class folders, such as Kaggle's `test`, only if there is nothing else.
            (not held[name].folders, rank, name)
            for name, (one, rank) in splits.items()
            if one == kind
        )
        for kind in ("fit", "test")
    }
    twice = [
        name
        for found in ranked.values()
        for flat, rank, name in found
        if [other[:2] for other in found].count((flat, rank)) > 1
    ]
    if twice or not ranked["fit"] or not ranked["test"]:
        raise UserError(
            f"data {tree.root}",
            expected="one folder to fit on, such as train, and one to test on, such as val",
            got=_some(twice or list(splits)),
            remedy="Rename or move one of them." if twice else
            f"Give the folder of one split, such as {tree.root / next(iter(splits))}, {_CSV}.",
        )  # fmt: skip
    chosen = ranked["fit"][0][2], ranked["test"][0][2]
    others = [name for name in tree.folders if name not in chosen]
    note = [f"fitted on {chosen[0]}, tested on {chosen[1]}; not used: {_some(others)}"]
    return *chosen, note if others else []


def _unwrapped(tree: Tree) -> tuple[Tree, list[str]]:
    """Return the tree below a folder that lies alone around all others, and notes."""
    notes = []
    inner = tree
    while len(inner.folders) == 1 and not inner.images_in_root:
        deeper = inner.below(inner.folders[0])
        if not deeper.folders or deeper.images_in_root:
            break
        inner = deeper
    if inner is not tree:
        notes.append(f"read below {inner.root.relative_to(tree.root)}, the only folder there is")
    if inner.folders and inner.images_in_root:
        notes.append(f"not used, as no class folder holds them: {_some(inner.images_in_root)}")
    return inner, notes


def _labelled(tree: Tree) -> list[tuple[Path, str]]:
    """Return the images of class folders with their labels, class by class.

    Raises:
        UserError: for a folder that is a part of another layout, a split, or empty.
    """
    names = tree.folders
    if not names:
        raise UserError(
            f"image folder {tree.root}",
            expected="a folder for every class",
            got=f"{len(tree.images_in_root)} images and no folders",
            remedy=f"Make a folder for each class, {_CSV}.",
        )
    splits = [name for name in names if split_of(name) and tree.below(name).folders]
    splits += [name for name in names if split_of(name) and len(names) == 1]
    parts = layout_parts(names)
    if parts or splits:
        raise UserError(
            f"data {tree.root}",
            expected="a folder for every class",
            got=f"{_some(parts or splits)}, by name a part of another layout"
            f"{looks_like(names) if parts else ''}",
            remedy=_remedy(tree, parts or splits),
        )
    rows: dict[str, list[tuple[str, ...]]] = {name: [] for name in names}
    for image in tree.images:
        if len(image) > 1:
            rows[image[0]].append(image)
    empty = [name for name, files in rows.items() if not files]
    if empty:
        others = count_text(sum((tree.below(name).suffixes() for name in empty), Counter()))
        raise UserError(
            f"image folder {tree.root}",
            expected="a folder with images for every class",
            got=f"no images in {_some(empty)}" + f", but {others}" * bool(others),
            remedy="Convert them to .jpg or .png, or remove the folder."
            if others
            else "Remove the empty class folder, or put its images there.",
        )
    _check_no_splits(tree)
    ordered = sorted(names, key=normalise_name)  # as the numbers of the classes
    return [
        (tree.root.joinpath(*image), name)
        for name in ordered
        for image in sorted(rows[name], key=_order)
    ]


def _check_no_splits(tree: Tree) -> None:
    """Raise ``UserError`` for folders that hold the same folders and so look like splits."""
    inner: dict[str, set[str]] = {name: set() for name in tree.folders}
    for parts in tree.images:
        if len(parts) == 2:
            return  # a picture of the class itself
        if len(parts) > 2:
            inner[parts[0]].add(parts[1])
    first, *others = inner.values()
    same = all({*map(normalise_name, names)} == {*map(normalise_name, first)} for names in others)
    if others and same and len(first) > 1 and not any(map(split_of, first)):
        raise UserError(
            f"data {tree.root}",
            expected="a folder for every class",
            got=f"{_some(list(inner))}, which hold the same folders ({_some(sorted(first))}): are "
            "those the classes?",
            remedy="If so, call the folders around them train and val, or give one of them; "
            f"if not, {_CSV[3:]}.",
        )


def _order(parts: tuple[str, ...]) -> tuple[Any, ...]:
    """Return the key that sorts images folder by folder, as an ImageFolder does, but naturally."""
    return natural_key(PurePath(*parts[:-1])), natural_key(parts[-1])


def _same_classes(
    fit_name: str, fit: Sequence[tuple[Path, str]], test_name: str, test: Sequence[tuple[Path, str]]
) -> None:
    fit_classes, test_classes = (
        {normalise_name(label) for _, label in rows} for rows in (fit, test)
    )
    if fit_classes != test_classes:
        raise UserError(
            "image folders",
            expected=f"the same classes in {fit_name} and {test_name}",
            got=f"{len(fit_classes)} and {len(test_classes)}, "
            f"differing in {sorted(fit_classes ^ test_classes)[:5]}",
            remedy="Give both splits a folder for every class, or test on one folder alone.",
        )


def _linked(fit: Sequence[tuple[Path, str]], test: Sequence[tuple[Path, str]] | None) -> list[str]:
    """Return a note of pictures that are linked into several class folders of a split."""
    rows = [*fit, *(test or ())]
    pictures = len(merge_labels(fit).paths) + (len(merge_labels(test).paths) if test else 0)
    if pictures == len(rows):
        return []
    return [f"{len(rows)} files are links to {pictures} pictures; their labels were joined"]


def _remedy(tree: Tree, wrong: Sequence[str]) -> str:
    for name in () if layout_remedy(tree.folders) else wrong:
        below = tree.below(name)
        classes = below
        if _has_splits(below):
            classes = below.below(next(iter(splits_among(below.folders))))
        if classes.folders:
            return f"If the classes are the folders in {name}, give {below.root}; {_CSV[3:]}."
    return layout_remedy(tree.folders) or (
        f"Make a folder for every class, {_CSV}; for masks, use images/10k/{{train,val}} and "
        "labels/sem_seg/masks/{train,val} (BDD100K's layout)."
    )


def _has_splits(tree: Tree) -> bool:
    kinds = {kind for kind, _ in splits_among(tree.folders).values()}
    return kinds == {"fit", "test"}


def _check_no_litter(path: Path, key: str, names: Sequence[str]) -> None:
    if names:
        raise UserError(
            key,
            expected="images and nothing else: the host reads whatever is there",
            got=f"{_some(names)} in {path}, hidden or not part of the data",
            remedy="Remove or move it.",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + f" and {len(names) - 4} more" * (len(names) > 4)
