"""The pictures that show what matters: found in the data or beside it, checked before any work."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from solo_ood.data import bdd
from solo_ood.data.frames import Frames
from solo_ood.data.images import Split
from solo_ood.data.labels import file_key
from solo_ood.data.names import normalise_name
from solo_ood.data.pixels import Unreadable, load
from solo_ood.data.rare import RareDefinition
from solo_ood.detection.boxes import Box, read_boxes
from solo_ood.detection.detectors import Detector
from solo_ood.detection.feats import Feats, feats_of
from solo_ood.detection.regions import Regions
from solo_ood.embedding.embedder import Embedder
from solo_ood.embedding.extract import Embedded, embed
from solo_ood.embedding.options import ExtractConfig
from solo_ood.errors import UserError, unknown_name
from solo_ood.files.text import printable, user_path
from solo_ood.mining.options import Wanted

MOST = 200  # pictures, whose patches are held in memory


class Lookup:
    """Finds the images that names stand for, in the data and beside it."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._by_key = {file_key(path): row for row, path in enumerate(frames.paths)}
        self._by_name: dict[str, list[int]] = defaultdict(list)
        for row, path in enumerate(frames.paths):
            self._by_name[printable(path.name)].append(row)

    def row(self, path: Path) -> int | None:
        """Return the row of a file of the data; ``None`` for another."""
        return self._by_key.get(file_key(path))

    def row_named(self, name: str, what: str) -> int:
        """Return the row of the only image of the data whose path, as it is shown, ends so.

        Raises:
            UserError: if there is none, or are several.
        """
        parts = Path(printable(name)).parts
        found = [
            row
            for row in self._by_name.get(parts[-1] if parts else "", ())
            if Path(printable(str(self._frames.paths[row].absolute()))).parts[-len(parts) :]
            == parts
        ]
        exact = [row for row in found if self._frames.name(self._frames.paths[row]) == name]
        if len(exact or found) == 1:
            return (exact or found)[0]
        raise UserError(
            f"{what}, {printable(name)!r}",
            expected="the path of 1 image of the data, or of a file",
            got=f"{len(found)} that end like it" if found else "none that ends like it",
            remedy="Give more of its path." if found else "Check its spelling.",
        )

    def path(self, name: str, what: str, folder: Path = Path()) -> Path:
        """Return the file that a name stands for: one that is there, counted from ``folder``, or
        the only one of the data whose path ends so.

        Raises:
            UserError: if there is none, or are several.
        """
        for base in dict.fromkeys((folder, Path())):
            given = base / user_path(name)
            if given.is_file():
                row = self.row(given)
                return given if row is None else self._frames.paths[row]
        return self._frames.paths[self.row_named(name, what)]


@dataclass(frozen=True)
class Exemplars:
    """What shows what matters.

    Attributes:
        split: E pictures, with their masks if these say where.
        rows: (E,) their rows in the data; -1 = they lie outside.
        boxes: by picture; ``None`` = none were given.
        definition: which classes of the masks matter; ``None`` without masks.
    """

    split: Split
    rows: np.ndarray
    boxes: dict[Path, list[Box]] | None = None
    definition: RareDefinition | None = None

    @property
    def have_regions(self) -> bool:
        """Whether it is known where in them what matters is."""
        return self.boxes is not None or self.definition is not None

    @property
    def in_data(self) -> list[Path]:
        """Those that are images of the data."""
        return [path for path, row in zip(self.split.paths, self.rows) if row >= 0]

    def known(self, paths: tuple[Path, ...]) -> list[int]:
        """Return which of ``paths``, images of the data that could be embedded, they are."""
        mine = set(self.in_data)
        return [row for row, path in enumerate(paths) if path in mine]


def read_exemplars(asked: Wanted, frames: Frames, lookup: Lookup) -> Exemplars | None:
    """Return the pictures that were named; ``None`` without any.

    Raises:
        UserError: for one that is not found or cannot be read, boxes that do not fit, too many, or
            classes without masks.
    """
    boxes = definition = None
    masks: tuple[Path, ...] = ()
    if asked.boxes is not None:
        if asked.exemplars:
            raise UserError(
                "--boxes",
                expected="no --exemplars beside them",
                got=f"{len(asked.exemplars)}",
                remedy="The images of the boxes are the exemplars.",
            )
        folder = asked.boxes.parent
        boxes = read_boxes(
            asked.boxes, lambda name, what: lookup.path(name, what, folder), asked.rare
        )
        paths = tuple(boxes)
    elif asked.exemplars:
        named = (lookup.path(name, "--exemplars") for name in asked.exemplars)
        paths = tuple(dict.fromkeys(named))
    else:
        if asked.rare:
            raise _rare_of_nothing("neither of them")
        return None
    _check(paths)
    if asked.rare and boxes is None:
        masks = _masks(paths)
        definition = _definition(asked.rare)
    empty = np.zeros((len(paths), 0), dtype=np.float32)
    split = Split(paths, empty, (), masks, levels=frames.levels)
    rows = np.array([-1 if (row := lookup.row(path)) is None else row for path in paths])
    return Exemplars(split, rows, boxes, definition)


def _check(paths: tuple[Path, ...]) -> None:
    if len(paths) > MOST:
        raise UserError(
            "exemplars",
            expected=f"at most {MOST} pictures, better 5 to 20",
            got=len(paths),
            remedy="Give those that show best what matters.",
        )
    for path in paths:
        try:
            load(path)
        except Unreadable as error:
            raise UserError(
                f"exemplar {printable(str(path))}",
                expected="an image that can be read",
                got=error.reason,
                remedy="Repair the file, or leave it out.",
            ) from error


def _masks(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    found = [bdd.mask_beside(path) for path in paths]
    without = [path.name for path, mask in zip(paths, found) if mask is None]
    if without:
        raise _rare_of_nothing(f"no mask of {without[0]}")
    return tuple(mask for mask in found if mask is not None)


def _rare_of_nothing(got: str) -> UserError:
    return UserError(
        "--rare",
        expected="--exemplars with masks (BDD100K's layout), or --boxes in JSON",
        got=got,
        remedy="Leave it out, or say by boxes where what matters is.",
    )


def _definition(names: tuple[str, ...]) -> RareDefinition:
    for name in map(normalise_name, names):
        if name not in bdd.CLASSES:
            raise unknown_name("class in --rare", name, bdd.CLASSES)
    ids = tuple(bdd.CLASSES.index(normalise_name(name)) for name in names)
    return RareDefinition("+".join(names), ids, 0, 0)


def embed_exemplars(
    exemplars: Exemplars,
    detector: Detector,
    embedder: Embedder,
    cfg: ExtractConfig,
    size: tuple[int, int],
) -> Feats:
    """Return what the detector may see of the exemplars, scaled and cut as the data are.

    Raises:
        UserError: if one gives no features, or the network sees nothing of what matters in them.
    """
    split = exemplars.split
    root = split.paths[0].parent
    embedded = embed(split, embedder, replace(cfg, max_unreadable=0.0), root, "exemplars", size)
    feats = feats_of(embedded)
    if not detector.regions or embedded.patches is None:
        return feats
    return replace(feats, regions=_regions(exemplars, embedded))


def _regions(exemplars: Exemplars, embedded: Embedded) -> np.ndarray:
    assert embedded.patches is not None
    grid = embedded.patches.shape[1:3]
    seen = Regions(embedded.split, embedded.size, grid, exemplars.boxes)
    definition = exemplars.definition or RareDefinition("boxes", (), 0, 0)
    shares = seen.patch_shares(definition, range(len(embedded.split)))
    if not shares[..., 0].any():
        raise UserError(
            "exemplars",
            expected="what matters in at least one of them, in the middle that the network sees "
            f"({embedded.size[0]} x {embedded.size[1]} pixels)",
            got="none",
            remedy="Give images that show it there.",
        )
    return shares
