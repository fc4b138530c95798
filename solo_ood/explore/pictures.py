"""The pictures of a ranking as JPEGs, by their number: no other file can be asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from solo_ood.data.frames import Frames, read_frames
from solo_ood.data.pixels import Levels, Unreadable, header, load
from solo_ood.errors import UserError
from solo_ood.mining.options import RankOptions

SMALL, LARGE = 320, 2048  # pixels of the longer side
KEPT = 1000  # thumbnails in memory, of about 10 KB each


class NotShown(Exception):
    """A picture that is not there (``outside`` false), or that may not be shown."""

    def __init__(self, reason: str, outside: bool = False) -> None:
        super().__init__(reason)
        self.outside = outside


def find_data(options: RankOptions, names: Sequence[str]) -> tuple[Frames | None, list[str]]:
    """Return the data of a ranking as they are now, and notes; ``None`` if they are gone."""
    try:
        frames = read_frames(options.data.path, options.data.clip_pattern, options.data.fps)
    except UserError as error:
        return None, [f"none of the {len(names):,} pictures is where it was: {error}"]
    there = {frames.name(path) for path in frames.paths}
    missing = [name for name in names if name not in there]
    notes = []
    if missing:
        notes.append(
            f"{len(missing):,} of {len(names):,} pictures are not where they were, such as "
            f"{missing[0]}: their rows stay, without a picture"
        )
    return frames, notes


class Pictures:
    """Reads the pictures of a ranking, never anything else, and writes nothing.

    Args:
        names: of the pictures, as the ranking has them; their places are their numbers.
        frames: the data; ``None`` = they are gone.
        follow_links: whether links in a folder may lead out of it. Files of a list, which somebody
            has named one by one, always may.
    """

    def __init__(self, names: Sequence[str], frames: Frames | None, follow_links: bool) -> None:
        found = {} if frames is None else {frames.name(path): path for path in frames.paths}
        self.paths = [found.get(name) for name in names]
        bound = frames is not None and frames.layout != "list" and not follow_links
        self._root = os.path.realpath(frames.root) if frames is not None and bound else None
        self.levels: Levels | None = None
        self._small = lru_cache(KEPT)(lambda number: self._jpeg(number, SMALL))

    def outside(self, number: int) -> bool:
        """Whether a picture is a link that leads out of the data."""
        path = self.paths[number]
        return path is not None and not self._is_inside(path)

    def count_outside(self) -> int:
        """Return how many are such links; each folder is looked at once."""
        if self._root is None:
            return 0
        folders: dict[str, bool] = {}
        for path in filter(None, self.paths):
            folder = os.path.dirname(path)
            if folder not in folders:
                folders[folder] = self._is_inside(folder)
        return sum(
            not (self._is_inside(path) if os.path.islink(path) else folders[os.path.dirname(path)])
            for path in filter(None, self.paths)
        )

    def _is_inside(self, path: Path | str) -> bool:
        return self._root is None or Path(os.path.realpath(path)).is_relative_to(self._root)

    def path(self, number: int) -> Path:
        """Return the file of a picture.

        Raises:
            NotShown: if it is gone, or a link that leads out of the data.
        """
        path = self.paths[number] if 0 <= number < len(self.paths) else None
        if path is None:
            raise NotShown("no such picture")
        if self.outside(number):
            raise NotShown("a link that leads out of the data; --follow-links shows it", True)
        return path

    def size(self, number: int) -> tuple[int, int] | None:
        """Return width and height (pixels) as it is shown; ``None`` if it cannot be."""
        try:
            image = header(self.path(number))
        except (NotShown, Unreadable):
            return None
        return image.width, image.height

    def small(self, number: int) -> bytes:
        """Return a thumbnail, see ``path`` for errors."""
        return self._small(number)

    def large(self, number: int) -> bytes:
        """Return the picture, of 2,048 pixels at most, see ``path`` for errors."""
        return self._jpeg(number, LARGE)

    def set_levels(self, levels: Levels | None) -> None:
        """Set what is black and white in pictures of more than 8 bits."""
        if levels != self.levels:
            self.levels = levels
            self._small.cache_clear()

    def _jpeg(self, number: int, side: int) -> bytes:
        try:
            image = load(self.path(number), self.levels)
        except Unreadable as error:
            raise NotShown(error.reason) from error
        image.thumbnail((side, side))
        file = BytesIO()
        image.save(file, "JPEG", quality=88)
        return file.getvalue()
