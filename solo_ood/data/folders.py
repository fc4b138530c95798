"""Class folders: which folders are classes, which are splits, and which are neither."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from solo_ood.data.labels import Labelled, merge_labels
from solo_ood.data.layouts import label_folders, layout_parts, layout_remedy, looks_like
from solo_ood.data.names import look_like_splits, normalise_name, split_of, splits_among
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
        fit, test = class_folders(tree), None
        inner = {parts[1] for parts in tree.dirs if len(parts) > 1 and split_of(parts[1])}
        if look_like_splits(tree.folders):
            notes.append(classes_note(tree.folders))
        if inner:
            notes.append(f"read together, whatever their class: {some(sorted(inner))}")
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
        fit, test = class_folders(fit_tree), class_folders(test_tree)
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
    return f"classes: {some(names)}; if these are splits, call them train and val, or give one"


def splits_of(tree: Tree) -> tuple[str, str, list[str]] | None:
    """Return the names of the folders to fit and to test on, and notes; ``None``: all are classes.

    Raises:
        UserError: for splits beside classes, without class folders, or without their counterpart.
    """
    splits = splits_among(tree.folders)
    if not splits or (split_of(tree.root.resolve().name) and not has_splits(tree)):
        return None  # in a split, `train` is a vehicle
    held = {name: tree.below(name) for name in tree.folders}
    mixed = [name for name in held if name not in splits and held[name].images_in_root]
    parts = layout_parts(list(held))
    if [name for name in mixed if name not in parts]:
        raise UserError(
            f"data {tree.root}",
            expected="class folders, or splits such as train and val with class folders in each",
            got=f"{some(list(splits))}, by name a split, beside {some(mixed)}",
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
            got=some(twice or list(splits)),
            remedy="Rename or move one of them." if twice else
            f"Give the folder of one split, such as {tree.root / next(iter(splits))}, {_CSV}.",
        )  # fmt: skip
    chosen = ranked["fit"][0][2], ranked["test"][0][2]
    others = [name for name in tree.folders if name not in chosen]
    note = [f"fitted on {chosen[0]}, tested on {chosen[1]}; not used: {some(others)}"]
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
        notes.append(f"not used, as no class folder holds them: {some(inner.images_in_root)}")
    return inner, notes


def class_folders(tree: Tree) -> list[tuple[Path, str]]:
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
            got=f"{some(parts or splits)}, by name a part of another layout"
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
            got=f"no images in {some(empty)}" + f", but {others}" * bool(others),
            remedy="Convert them to .jpg or .png, or remove the folder."
            if others
            else "Remove the empty class folder, or put its images there.",
        )
    _check_no_labels(tree)
    _check_no_splits(tree)
    ordered = sorted(names, key=normalise_name)  # as the numbers of the classes
    return [
        (tree.root.joinpath(*image), name)
        for name in ordered
        for image in sorted(rows[name], key=_order)
    ]


def _check_no_labels(tree: Tree) -> None:
    """Raise ``UserError`` for folders in class folders that hold masks, which are no pictures."""
    found = set(label_folders(parts for parts in tree.dirs if len(parts) > 1))
    wrong: list[str] = []
    for image in tree.images:
        above = [image[:n] for n in range(2, len(image)) if image[:n] in found]
        wrong += ["/".join(parts) for parts in above[:1]]
    wrong = sorted(set(wrong))
    if wrong:
        raise UserError(
            f"data {tree.root}",
            expected="pictures in the class folders",
            got=f"{some(wrong)}, by name the labels of pictures",
            remedy=f"Move what is not to be looked at elsewhere, {_CSV}.",
        )


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
            got=f"{some(list(inner))}, which hold the same folders ({some(sorted(first))}): are "
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
        if has_splits(below):
            classes = below.below(next(iter(splits_among(below.folders))))
        if classes.folders:
            return f"If the classes are the folders in {name}, give {below.root}; {_CSV[3:]}."
    return layout_remedy(tree.folders) or (
        f"Make a folder for every class, {_CSV}; for masks, use images/10k/{{train,val}} and "
        "labels/sem_seg/masks/{train,val} (BDD100K's layout)."
    )


def has_splits(tree: Tree) -> bool:
    """Whether there is a folder to fit on and one to test on, by their names."""
    kinds = {kind for kind, _ in splits_among(tree.folders).values()}
    return kinds == {"fit", "test"}


def some(names: Sequence[str]) -> str:
    """Return the first names in a row, and how many more there are."""
    return ", ".join(names[:4]) + f" and {len(names) - 4} more" * (len(names) > 4)
