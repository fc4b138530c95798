"""Decode single frames of videos, in any order; neighbours without seeking."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from solo_ood.data.videos import Video, decoded, library, probe

_OPEN = 4  # videos that are held open
_TURNS = {
    1: Image.Transpose.ROTATE_90,
    2: Image.Transpose.ROTATE_180,
    3: Image.Transpose.ROTATE_270,
}


class _Reader:
    """Decodes frames of one video; seeks only if decoding can begin nearer to the next one."""

    def __init__(self, video: Video) -> None:
        self.video = video
        self.av = library(video.path.name)
        self.container: Any = None
        self.seeks = video.timed  # whether the container finds what it is asked for
        self._reopen()

    def _reopen(self) -> None:
        self.close()
        self.container = self.av.open(str(self.video.path))
        self._begin()

    def _begin(self) -> None:
        self.frames = decoded(self.av, self.container)
        self.last: tuple[int, Any] | None = None

    def close(self) -> None:
        if self.container is not None:
            self.container.close()

    def frame(self, number: int) -> Any:
        """Return a frame of PyAV.

        Raises:
            ValueError: if it cannot be decoded.
        """
        wanted = int(self.video.stamps[number])
        at = int(self.video.keys[0]) if self.last is None else self.last[0]
        keys = self.video.keys
        nearest = int(keys[max(0, int(np.searchsorted(keys, wanted, side="right")) - 1)])
        if self.seeks and (wanted < at or at < nearest):
            stream = self.container.streams.video[0]
            self.container.seek(wanted, stream=stream, backward=True)
            self._begin()
        elif wanted < at:
            self._reopen()
        found = self._forward(wanted)
        if found is None:
            self._reopen()
            found = self._forward(wanted)
            self.seeks = self.seeks and found is None  # broadcasts are sought by a guess
        if found is None:
            raise ValueError(f"frame {number} cannot be decoded")
        return found

    def _forward(self, wanted: int) -> Any:
        if self.last is not None and self.last[0] == wanted:
            return self.last[1]
        for frame in self.frames:
            before = -1 if self.last is None else self.last[0]
            stamp = frame.pts if self.video.timed else before + 1
            self.last = (before if stamp is None else stamp, frame)
            if stamp is not None and stamp >= wanted:
                return frame if stamp == wanted else None
        return None


_lock = threading.Lock()
_readers: OrderedDict[Video, _Reader] = OrderedDict()
_abandoned: list[OrderedDict[Video, _Reader]] = []


def read_frame(path: Path, number: int) -> Image.Image:
    """Return a frame in RGB, upright.

    Raises:
        UserError: see ``probe``.
        ValueError: if the video has no such frame, or it cannot be decoded.
    """
    video = probe(path)
    if number >= len(video):
        raise ValueError(f"frame {number} of a video of {len(video)} frames")
    with _lock:
        frame = _reader(video).frame(number)
        image = frame.to_image()
    return image.transpose(_TURNS[video.quarters]) if video.quarters else image


def _reader(video: Video) -> _Reader:
    reader = _readers.pop(video, None) or _Reader(video)
    _readers[video] = reader  # the last one is the newest
    while len(_readers) > _OPEN:
        _readers.popitem(last=False)[1].close()
    return reader


def _forget() -> None:
    """In a forked process: the open files share their position with those of its parent.

    They cannot be closed there: their decoders would wait for threads that were not forked.
    """
    global _lock, _readers
    _lock = threading.Lock()
    _abandoned.append(_readers)
    _readers = OrderedDict()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
