"""Embeddings on disk: memory-mapped, written row by row, resumable after a kill."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from solo_ood.data.videos import file_of
from solo_ood.errors import UserError
from solo_ood.files import atomic

MISSING, DONE, UNREADABLE = 0, 1, 2


class EmbeddingStore:
    """The rows of one data set, embedded by one network, in a folder of ``.npy`` files.

    Rows are written before they are marked as done, so that a killed process loses at most the
    batch it was working on. Several processes may write different rows at the same time.

    Attributes:
        arrays: (N, *shape) memory maps by kind of feature.
        status: (N,) uint8 memory map of ``MISSING``, ``DONE``, ``UNREADABLE``.
        sizes: (N, 2) int32 memory map, height and width of the images as they are shown, in pixels;
            0 = not known.

    Args:
        folder: made if need be.
        shapes: the shape and dtype of one row by kind of feature.
        n: N.
    """

    def __init__(
        self, folder: Path, shapes: dict[str, tuple[tuple[int, ...], str]], n: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.arrays = {
            kind: _open(folder / f"{kind}.npy", (n, *shape), dtype)
            for kind, (shape, dtype) in shapes.items()
        }
        self.sizes = _open(folder / "sizes.npy", (n, 2), "int32")
        self.status = _open(folder / "status.npy", (n,), "uint8")

    @property
    def missing_rows(self) -> np.ndarray:
        """Return the indexes of the rows that are missing, or could not be read the last time."""
        return np.flatnonzero(np.asarray(self.status) != DONE)

    def write(
        self,
        rows: np.ndarray,
        feats: dict[str, np.ndarray],
        readable: np.ndarray,
        sizes: np.ndarray | int = 0,
    ) -> None:
        """Write the features (B, ...) of ``rows`` (B,).

        Args:
            rows: indexes.
            feats: by kind.
            readable: (B,) bool marks the good.
            sizes: (B, 2) of the images.
        """
        self.sizes[rows] = sizes
        self.sizes.flush()
        for kind, array in self.arrays.items():
            array[rows] = feats[kind]
            array.flush()
        self.status[rows] = np.where(readable, DONE, UNREADABLE)
        self.status.flush()


def store_key(paths: Sequence[Path], root: Path, fingerprint: str, transform: str) -> str:
    """Return a name for the embeddings of these files, as they are now, by this network.

    Args:
        paths: the images; the sizes and times of change of their files are part of the key.
        root: below which they lie; only the relative paths count.
        fingerprint: of the network, its weights and its stage.
        transform: what is done to an image before.
    """
    digest = hashlib.sha256(f"{fingerprint}\n{transform}\n".encode())
    for path in paths:
        try:
            status = file_of(path).stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:  # gone meanwhile: embedded as unreadable
            state = "none"
        digest.update(os.fsencode(os.path.relpath(path, root)))
        digest.update(f" {state}\n".encode())
    return digest.hexdigest()[:20]


def check_whole(folder: Path, what: str) -> None:
    """Raise ``UserError`` unless ``folder`` is a store in which no row is missing."""
    try:
        missing = int((np.load(folder / "status.npy", mmap_mode="r") == MISSING).sum())
        got = f"{missing} images without them in {folder}"
    except (OSError, ValueError):
        missing, got = 1, f"no folder {folder} with them"
    if missing:
        raise UserError(
            f"features of {what}",
            expected="those that solo-ood rank kept, of the images as they are now",
            got=got,
            remedy="Call solo-ood rank again: it computes what is missing, and keeps it.",
        )


def describe(folder: Path, facts: dict[str, object]) -> None:
    """Write ``about.json``, which says what a cache folder holds."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "about.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _open(path: Path, shape: tuple[int, ...], dtype: str) -> np.memmap:
    if not path.exists():
        # Made aside: a process beside this one sees all of it or nothing.
        atomic.create(
            path,
            lambda aside: np.lib.format.open_memmap(aside, "w+", dtype=dtype, shape=shape).flush(),
        )
    size = path.stat().st_size  # before it is opened, which fills up a file that was cut
    try:
        array = np.lib.format.open_memmap(path, "r+")
        right = array.shape == shape and array.dtype == np.dtype(dtype)
        right = right and array.offset + array.nbytes == size
    except ValueError:
        right = False
    if not right:
        raise UserError(
            f"cache {path}",
            expected=f"an array of shape {shape} and type {dtype}",
            got="another file",
            remedy="Delete its folder; the embeddings are then computed again.",
        )
    return array
