"""Labelled images on disk: BDD100K's layout, image folders, CSV lists; nothing is decoded here."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from solo_ood.data import bdd
from solo_ood.data.tail import exponential_counts
from solo_ood.errors import UserError

FIT_NAMES, TEST_NAMES = ("train", "fit"), ("val", "test")


@dataclass(frozen=True)
class Split:
    """Images of one split and how much of each class is in them.

    Attributes:
        paths: N image files.
        shares: (N, C) float32, the share of an image's pixels that belong to each class, in [0, 1];
            one-hot where an image has one label.
        classes: C names.
        masks: N files, if the shares come from the pixels of these.
        left_out: files without which the split goes on, by reason.
    """

    paths: tuple[Path, ...]
    shares: np.ndarray
    classes: tuple[str, ...]
    masks: tuple[Path, ...] = ()
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def by_pixels(self) -> bool:
        """Whether the shares come from masks."""
        return bool(self.masks)

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64, the class with the largest share."""
        return self.shares.argmax(axis=1)

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

    def caption(self, row: int) -> str:
        """Return the labels of one image in a few words: the largest classes first."""
        order = np.argsort(-self.shares[row], kind="stable")
        if not self.by_pixels:
            return self.classes[order[0]]
        return ", ".join(f"{self.classes[c]} {self.shares[row, c]:.1%}" for c in order[:3])


def layout_of(root: Path) -> str:
    """Return how the data at ``root`` are laid out: ``bdd``, ``csv`` or ``folder``.

    Raises:
        UserError: if there is nothing.
    """
    if root.suffix.lower() == ".csv" and root.is_file():
        return "csv"
    if (root / "images" / "10k").is_dir():
        return "bdd"
    if root.is_dir() and any(child.is_dir() for child in root.iterdir()):
        return "folder"
    raise UserError(
        "data",
        expected="images/10k/ and labels/sem_seg/masks/ below it (BDD100K's layout), class "
        "folders, or a .csv of path,label",
        got=f"{root}, which has none of them",
        remedy="Give the folder that holds `images` and `labels`, an ImageFolder, or a CSV.",
    )


def read_splits(root: Path, max_unreadable: float = 0.01) -> tuple[Split, Split | None]:
    """Return the split to fit on and the one to test on; ``None`` if there is only one.

    Args:
        root: see ``layout_of``. Image folders are tested on ``val`` or ``test`` if they have
            ``train`` beside it; CSVs on the rows whose column ``split`` says so.
        max_unreadable: share of a split's images that may lack a readable mask, in [0, 1].

    Raises:
        UserError: for a layout that is not known, an empty split, classes that differ between the
            splits, or too many unreadable masks.
    """
    fit, test = _read(root, max_unreadable)
    fit = _existing(fit, max_unreadable, f"{root.name}, fit split")
    if test is not None:
        test = _existing(test, max_unreadable, f"{root.name}, test split")
    return fit, test


def _existing(split: Split, limit: float, what: str) -> Split:
    """Leave out files that are not there; raise if these are more than the share ``limit``."""
    there = np.array([path.is_file() for path in split.paths], dtype=bool)
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
        splits = [_read_bdd(root, name, max_unreadable) for name in ("train", "val")]
        return splits[0], splits[1]
    if layout == "csv":
        return _read_csv(root)
    names = {child.name for child in root.iterdir() if child.is_dir()}
    fit_name = next((name for name in FIT_NAMES if name in names), None)
    test_name = next((name for name in TEST_NAMES if name in names), None)
    if fit_name is None or test_name is None:
        # A folder of that name and nothing beside it is no class.
        return _read_folder(root / fit_name if fit_name and len(names) == 1 else root), None
    fit, test = _read_folder(root / fit_name), _read_folder(root / test_name)
    if fit.classes != test.classes:
        raise UserError(
            "image folders",
            expected=f"the same classes in {fit_name} and {test_name}",
            got=f"{len(fit.classes)} and {len(test.classes)}, "
            f"differing in {sorted(set(fit.classes) ^ set(test.classes))[:5]}",
            remedy="Give both splits a folder for every class, or test on one folder alone.",
        )
    return fit, test


def long_tailed(split: Split, imbalance: float, seed: int) -> tuple[Split, list[str]]:
    """Return a long-tailed subset of ``split`` and its classes, the most frequent first.

    The profile of CIFAR-LT (``exponential_counts``); ``seed`` permutes which classes are rare and
    draws the samples.

    Raises:
        UserError: for a class without images.
    """
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


def _read_folder(root: Path) -> Split:
    from torchvision.datasets import ImageFolder

    try:
        folder = ImageFolder(str(root))
    except FileNotFoundError as error:
        raise UserError(
            f"image folder {root}",
            expected="a folder with images for every class",
            got=str(error).splitlines()[0],
            remedy="Remove the empty class folder, or put its images there.",
        ) from error
    paths = tuple(Path(path) for path, _ in folder.samples)
    return Split(paths, one_hot(folder.targets, len(folder.classes)), tuple(folder.classes))


def _read_bdd(root: Path, name: str, max_unreadable: float) -> Split:
    paths, masks, left_out = bdd.pair(root, name)
    shares, bad = bdd.pixel_shares(masks, f"masks of {name}")
    split = Split(tuple(paths), shares, bdd.CLASSES, tuple(masks), left_out)
    readable = np.array([str(mask) not in bad for mask in masks])
    if (~readable).mean() > max_unreadable:
        first = next(iter(bad))
        raise UserError(
            f"masks of {name}",
            expected=f"at most {max_unreadable:.1%} that cannot be used",
            got=f"{len(bad)} of {len(masks)}, the first {Path(first).name}: {bad[first]}",
            remedy="Repair them, or allow more with --max-unreadable.",
        )
    for mask, reason in bad.items():
        left_out.setdefault(f"mask {reason}", []).append(Path(mask).name)
    return replace(split.keep(readable), left_out=left_out)


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV with a header; these columns have a value in each of them.

    Raises:
        UserError: for a file that is no CSV in UTF-8, has no rows, or lacks a column or a value.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # Excel begins with a mark
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(
            str(path),
            expected="a CSV",
            got=str(error),
            remedy="Check its spelling, and that you may read the file.",
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            path.name, expected="a CSV in UTF-8", got=str(error), remedy="Save it as UTF-8."
        ) from error
    known = set(rows[0]) if rows else set()
    if not known.issuperset(columns):
        raise UserError(
            f"{path.name}",
            expected=f"a header with the columns {', '.join(columns)}, and one row or more",
            got=f"{len(rows)} rows with the columns {sorted(map(str, known))}",
            remedy=f"Write `{','.join(columns)}` into its first line.",
        )
    incomplete = [n for n, row in enumerate(rows, 2) if not all(row[one] for one in columns)]
    if incomplete:
        raise UserError(
            f"{path.name}",
            expected=f"{', '.join(columns)} in every row",
            got=f"not all of them in line {incomplete[0]} (and {len(incomplete) - 1} more)",
            remedy="Fill or remove these lines.",
        )
    return rows


def _read_csv(path: Path) -> tuple[Split, Split | None]:
    rows = read_csv(path, ("path", "label"))
    classes = tuple(sorted({row["label"] for row in rows}))
    ids = {name: number for number, name in enumerate(classes)}

    def split(chosen: list[dict[str, str]]) -> Split:
        files = tuple(path.parent / row["path"] for row in chosen)
        return Split(files, one_hot([ids[row["label"]] for row in chosen], len(classes)), classes)

    if "split" not in rows[0]:
        return split(rows), None
    unknown = {row["split"] for row in rows} - {*FIT_NAMES, *TEST_NAMES}
    fit = [row for row in rows if row["split"] in FIT_NAMES]
    test = [row for row in rows if row["split"] in TEST_NAMES]
    if unknown or not fit:
        raise UserError(
            f"{path.name}, column split",
            expected=f"{', '.join(FIT_NAMES)} (at least one row), {', '.join(TEST_NAMES)}",
            got=sorted({str(row["split"]) for row in rows}),
            remedy="Use these names, or leave the column out.",
        )
    return split(fit), split(test) if test else None
