"""Labelled images on disk: BDD100K's layout, image folders, CSV lists; nothing is decoded here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from solo_ood.data import bdd, lists
from solo_ood.data.folders import read_folders
from solo_ood.data.labels import Labelled, case_note, check_no_leak
from solo_ood.data.names import is_litter
from solo_ood.data.pixels import Levels
from solo_ood.data.tail import exponential_counts
from solo_ood.data.tree import is_image
from solo_ood.errors import UserError


@dataclass(frozen=True)
class Split:
    """Images of one split and how much of each class is in them.

    Attributes:
        paths: N image files.
        shares: (N, C) float32, the share of an image's pixels that belong to each class, in [0, 1];
            0 or 1 where images have labels, one of them or several.
        classes: C names.
        masks: N files, if the shares come from the pixels of these.
        left_out: files without which the split goes on, by reason.
        notes: what a reader should know of how the data were read; of the fit split only.
        levels: black and white of images with more than 8 bits; ``None`` = not looked at.
    """

    paths: tuple[Path, ...]
    shares: np.ndarray
    classes: tuple[str, ...]
    masks: tuple[Path, ...] = ()
    left_out: dict[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    levels: Levels | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def by_pixels(self) -> bool:
        """Whether the shares come from masks."""
        return bool(self.masks)

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64, the class with the largest share: the label, where each image has one."""
        return self.shares.argmax(axis=1)

    @property
    def several_labels(self) -> np.ndarray:
        """(N,) bool, the images with several labels."""
        return ((self.shares > 0).sum(axis=1) > 1) & (not self.by_pixels)

    @property
    def images_of(self) -> np.ndarray:
        """(C,) int64, in how many images each class is."""
        return (self.shares > 0).sum(axis=0)

    def keep(self, rows: np.ndarray, reason: str | None = None) -> Split:
        """Return the split with ``rows`` (indexes, or (N,) bool) only; name the others' reason."""
        indexes = np.flatnonzero(rows) if rows.dtype == bool else rows
        left_out = {key: list(names) for key, names in self.left_out.items()}
        kept = set(indexes.tolist())
        gone = [path.name for row, path in enumerate(self.paths) if row not in kept]
        if reason and gone:
            left_out.setdefault(reason, []).extend(gone)
        paths, masks = (
            tuple(files[row] for row in indexes) if files else ()
            for files in (self.paths, self.masks)
        )
        shares = self.shares[indexes]
        return replace(self, paths=paths, masks=masks, shares=shares, left_out=left_out)

    def left_out_notes(self, what: str) -> list[str]:
        """Return how many files were left out for which reason, and the first of their names."""
        notes = []
        for reason, names in self.left_out.items():
            shown = [*names[:3], "…"] if len(names) > 3 else names
            notes.append(f"{what}: {len(names)} left out, {reason} ({', '.join(shown)})")
        return notes

    def caption(self, row: int) -> str:
        """Return the labels of one image in a few words: the largest classes first."""
        order = np.argsort(-self.shares[row], kind="stable")
        if not self.by_pixels:
            return ", ".join(self.classes[c] for c in order if self.shares[row, c] > 0)
        return ", ".join(f"{self.classes[c]} {self.shares[row, c]:.1%}" for c in order[:3])


def layout_of(root: Path) -> str:
    """Return how the data at ``root`` are laid out: ``bdd``, ``csv`` or ``folder``.

    Raises:
        UserError: if there is nothing.
    """
    if root.suffix.lower() in lists.SUFFIXES and root.is_file():
        return "csv"
    if root.is_dir() and bdd.locate(root) is not None:
        return "bdd"
    if root.is_dir() and any(
        child.is_dir() and not is_litter(child.name) for child in root.iterdir()
    ):
        return "folder"
    remedy = "Give the folder that holds `images` and `labels`, an ImageFolder, or a CSV."
    if root.is_dir() and any(is_image(child.name) for child in root.iterdir()):
        remedy = f"Give {root.resolve().parent}, if its folders are the classes, or write a CSV."
    raise UserError(
        "data",
        expected="images/10k/ and labels/sem_seg/masks/ below it (BDD100K's layout), class "
        "folders, or a .csv of path,label",
        got=f"{root}, which has none of them",
        remedy=remedy,
    )


def read_splits(
    root: Path, max_unreadable: float = 0.01, cross_fit: bool = False
) -> tuple[Split, Split | None]:
    """Return the split to fit on and the one to test on; ``None`` if there is only one.

    Args:
        root: see ``layout_of``. Image folders are tested on ``val`` or ``test`` (in any spelling,
            see ``split_of``) if they have ``train`` beside it; CSVs on the rows whose column
            ``split`` says so.
        max_unreadable: share of a split's images that may lack a readable mask, in [0, 1].
        cross_fit: leave the test split out.

    Raises:
        UserError: for a layout that is not known, an empty split, classes that differ between the
            splits, pictures that are in both, or too many unreadable masks.
    """
    name = root.resolve().name
    fit, test = _read(root, max_unreadable)
    fit = _without_missing_files(fit, max_unreadable, f"{name}, fit split")
    if test is None or cross_fit:
        return fit, None
    check_no_leak(name, fit.paths, test.paths, fit.notes)
    return fit, _without_missing_files(test, max_unreadable, f"{name}, test split")


def _without_missing_files(split: Split, limit: float, what: str) -> Split:
    """Leave out files that are not there; raise if these are more than the share ``limit``."""
    # `Path.is_file` raises where a folder may not be entered.
    there = np.array([os.path.isfile(path) for path in split.paths], dtype=bool)
    if len(split) and (~there).mean() > limit:
        first = split.paths[int(np.argmin(there))]
        raise UserError(
            what,
            expected=f"at most {limit:.1%} of {len(split)} files to be missing",
            got=f"{int((~there).sum())}, the first {first}",
            remedy="Paths in a CSV count from its folder; or allow more with --max-unreadable.",
        )
    return split.keep(there, "no such file")


def _read(root: Path, max_unreadable: float) -> tuple[Split, Split | None]:
    layout = layout_of(root)
    if layout == "bdd":
        found = bdd.locate(root) or root
        fit, test = (_read_bdd(found, name, max_unreadable) for name in ("train", "val"))
        notes = (f"read below {found.relative_to(root)}",) if found != root else ()
        return replace(fit, notes=notes), test
    labelled = lists.read_list(root) if layout == "csv" else read_folders(root)
    return _splits(*labelled)


def _splits(fit: Labelled, test: Labelled | None, notes: list[str]) -> tuple[Split, Split | None]:
    """Return the splits of labelled files; both have the classes of either."""
    both = [fit, test] if test else [fit]
    classes = tuple(
        sorted({label for labelled in both for labels in labelled.labels for label in labels})
    )
    ids = {name: number for number, name in enumerate(classes)}

    def split(labelled: Labelled) -> Split:
        shares = np.zeros((len(labelled.paths), len(classes)), dtype=np.float32)
        for row, labels in enumerate(labelled.labels):
            shares[row, [ids[label] for label in labels]] = 1
        return Split(labelled.paths, shares, classes)

    every_note = tuple(notes + case_note(classes))
    return replace(split(fit), notes=every_note), split(test) if test else None


def long_tailed(split: Split, imbalance: float, seed: int) -> tuple[Split, list[str]]:
    """Return a long-tailed subset of ``split`` and its classes, the most frequent first.

    The profile of CIFAR-LT (``exponential_counts``); ``seed`` permutes which classes are rare and
    draws the samples.

    Raises:
        UserError: for a class without images, or images with several labels.
    """
    if split.several_labels.any():
        raise UserError(
            "long-tailed subset",
            expected="images of one label each",
            got=f"{int(split.several_labels.sum())} of {len(split)} with several",
            remedy="Leave --imbalance out.",
        )
    missing = sorted(set(range(len(split.classes))) - set(split.labels.tolist()))
    if missing:
        raise UserError(
            "long-tailed subset",
            expected="images of every class",
            got=f"none of {[split.classes[label] for label in missing]}",
            remedy="Leave these classes out of the data, or give them images.",
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(split.classes))
    members = [rng.permutation(np.flatnonzero(split.labels == label)) for label in order]
    largest = min(map(len, members))
    counts = exponential_counts(largest, len(order), imbalance)
    rows = np.sort(np.concatenate([m[:count] for m, count in zip(members, counts)]))
    return split.keep(rows), [split.classes[label] for label in order]


def one_hot(labels: Sequence[int] | np.ndarray, num_classes: int) -> np.ndarray:
    """Return (N, C) float32."""
    return np.eye(num_classes, dtype=np.float32)[np.asarray(labels, dtype=np.int64)]


def _read_bdd(root: Path, name: str, max_unreadable: float) -> Split:
    paths, masks, left_out = bdd.pair_images_and_masks(root, name)
    shares, bad = bdd.pixel_shares(masks, f"masks of {name}")
    split = Split(tuple(paths), shares, bdd.CLASSES, tuple(masks), left_out)
    readable = np.array([str(mask) not in bad for mask in masks])
    # What has label ids hides in the other masks, too: there they look like train ids.
    mistaken = sum(reason == bdd.LABEL_IDS for reason in bad.values()) / len(masks)
    if (~readable).mean() > max_unreadable or mistaken > 0.01:
        ((reason, _),) = Counter(bad.values()).most_common(1)
        first = next(mask for mask, why in bad.items() if why == reason)
        raise UserError(
            f"masks of {name}",
            expected=f"at most {max_unreadable:.1%} that cannot be used",
            got=f"{len(bad)} of {len(masks)}, the first {Path(first).name}: {reason}",
            remedy=bdd.REMEDIES.get(reason, "Repair them, or allow more with --max-unreadable."),
        )
    for mask, reason in bad.items():
        left_out.setdefault(f"mask {reason}", []).append(Path(mask).name)
    return replace(split.keep(readable), left_out=left_out)
