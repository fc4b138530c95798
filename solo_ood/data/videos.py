"""Frames of videos as if they were images in a folder: ``drive.mp4/frame_000120.png``.

Nothing is unpacked: such a path names the 121st frame of ``drive.mp4``, which is decoded when it is
asked for (``video_frames``). PyAV is imported on use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from solo_ood.errors import UserError

SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .m2ts .mts .ts .wmv .flv .3gp .ogv .mxf".split()
)
_NAME = re.compile(r"frame_(\d{6,})\.png")


@dataclass(frozen=True, eq=False)
class Video:
    """What is known of a video from its packets, without decoding more than one frame.

    Attributes:
        path: of the file.
        stamps: (N,) int64, when each frame is shown, ascending, in the file's unit of time; the
            numbers of the frames where the file does not say when.
        seconds: (N,) from the first frame on.
        keys: (K,) int64, the stamps from which decoding can begin.
        timed: whether the file says when frames are shown.
        height: as it is shown, in pixels.
        width: the same.
        quarters: turns to the left (by 90 degrees) after which a frame is upright.
        promised: frames that there should be by the header; 0 = it does not say.
    """

    path: Path
    stamps: np.ndarray
    seconds: np.ndarray
    keys: np.ndarray
    timed: bool
    height: int
    width: int
    quarters: int
    promised: int

    def __len__(self) -> int:
        return len(self.stamps)

    def chosen(self, fps: float | None) -> np.ndarray:
        """Return the numbers of the frames to look at, at most ``fps`` a second; ``None`` = all."""
        if fps is None:
            return np.arange(len(self))
        slots = np.floor(self.seconds * fps + 1e-6)
        return np.flatnonzero(np.diff(slots, prepend=-1) > 0)


def is_video(path: Path | str) -> bool:
    """Return whether a file is a video by its suffix."""
    return os.path.splitext(path)[1].lower() in SUFFIXES


def frame_path(video: Path, number: int) -> Path:
    """Return the path of a frame, counted from 0."""
    return video / f"frame_{number:06d}.png"


def frame_of(path: Path | str) -> tuple[Path, int] | None:
    """Return the video and the number of a frame that a path names; ``None`` for another path."""
    folder, name = os.path.split(path)
    if not is_video(folder):
        return None
    match = _NAME.fullmatch(name)
    return (Path(folder), int(match[1])) if match and os.path.isfile(folder) else None


def file_of(path: Path) -> Path:
    """Return the file that a path is read from: the video of a frame, else itself."""
    frame = frame_of(path)
    return path if frame is None else frame[0]


def library(what: str) -> Any:
    """Return PyAV.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise UserError(
            what,
            expected="the package av (PyAV), which reads videos",
            got="none",
            remedy="Install solo-ood[video], or give images.",
        ) from error
    return av


def probe(path: Path) -> Video:
    """Return what is known of a video; what follows a cut or a fault in the file is left out.

    Raises:
        UserError: without PyAV, or for a file in which no frame of a video can be decoded.
    """
    status = os.stat(path)
    return _probe(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _probe(path: Path, size: int, changed: int) -> Video:
    av = library(path.name)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise _no_video(path, "a file without one")
            stream = container.streams.video[0]
            stamps, keys = _packets(av, container, stream)
            unit, promised = stream.time_base, int(stream.frames or 0)
            rate = float(stream.average_rate or 25)
        with av.open(str(path)) as container:
            first = next(iter(decoded(av, container)), None)
            timed = None not in stamps and len(set(stamps)) == len(stamps)
            if first is not None and not timed:
                stamps = list(range(1 + sum(1 for _ in decoded(av, container))))
    except (av.error.FFmpegError, OSError) as error:
        raise _no_video(path, " ".join(f"{type(error).__name__}: {error}".split())) from error
    if first is None:
        raise _no_video(path, "none that can be decoded")
    if timed:  # what stands before the first frame that is shown cannot be decoded
        stamps = [stamp for stamp in stamps if stamp >= (first.pts or 0)]
    ordered = np.array(sorted(stamps), dtype=np.int64)
    seconds = (ordered - ordered[0]) * float(unit) if timed else ordered / rate
    quarters = round(first.rotation / 90) % 4
    height, width = first.height, first.width
    if quarters % 2:
        height, width = width, height
    key = np.array(sorted(keys) if timed else [0], dtype=np.int64)
    return Video(path, ordered, seconds, key, timed, height, width, quarters, promised)


def _packets(av: Any, container: Any, stream: Any) -> tuple[list[Any], list[Any]]:
    """Return the stamps of the packets that are whole, and of those where decoding can begin."""
    stamps, keys = [], []
    try:
        for packet in container.demux(stream):
            if packet.size and not (packet.is_corrupt or packet.is_discard):
                stamps.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
    except av.error.FFmpegError:  # a file that was cut
        pass
    return stamps, keys


def decoded(av: Any, container: Any) -> Iterator[Any]:
    """Yield the frames from where the container stands on, as far as they can be decoded."""
    frames = container.decode(video=0)
    while True:
        try:
            frame = next(frames)
        except (StopIteration, av.error.FFmpegError):
            return
        yield frame


def _no_video(path: Path, got: str) -> UserError:
    return UserError(
        str(path),
        expected="a video stream that can be decoded",
        got=got,
        remedy="Repair or convert the file (ffmpeg -i IN OUT.mp4), or leave it out.",
    )
