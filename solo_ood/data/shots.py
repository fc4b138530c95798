"""The frames of videos among files, in their order, and what a reader should know of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from solo_ood.console import counting_bar
from solo_ood.data.videos import Video, frame_path, is_video, library, probe
from solo_ood.errors import UserError
from solo_ood.files.text import few, printable


@dataclass
class Shots:
    """Images, those of videos in the place of these.

    Attributes:
        sources: of each image the file that it is from.
        seconds: of frames of videos, from the start of their video.
        notes: what a reader should know.
    """

    sources: list[Path] = field(default_factory=list)
    seconds: dict[Path, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _paths: list[Path] = field(default_factory=list)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The N images."""
        return tuple(self._paths)

    def add(self, path: Path, source: Path) -> None:
        """Append an image."""
        self._paths.append(path)
        self.sources.append(source)


def expanded(files: Sequence[Path], fps: float | None) -> Shots:
    """Return the images, with the frames of a video in its place, at most ``fps`` a second.

    Raises:
        UserError: if PyAV is needed and not installed, or no video can be read and there is nothing
            else.
    """
    shots = Shots()
    found = _probed([path for path in files if is_video(path)])
    for path in files:
        video = found.get(path)
        if video is None:
            shots.add(path, path)
        elif isinstance(video, Video):
            for number in video.chosen(fps).tolist():
                frame = frame_path(path, number)
                shots.add(frame, path)
                shots.seconds[frame] = float(video.seconds[number])
    unread: dict[str, list[Path]] = defaultdict(list)
    for path, video in found.items():
        if isinstance(video, UserError):
            if not shots.sources:
                raise video
            unread[video.got].append(path)
    videos = [video for video in found.values() if isinstance(video, Video)]
    shots.notes += _notes(videos, len(shots.seconds), fps)
    for reason, paths in unread.items():
        names = few([printable(path.name) for path in paths], 3)
        shots.notes.append(f"{len(paths)} videos left out, not readable ({names}): {reason}")
    return shots


def _probed(paths: Sequence[Path]) -> dict[Path, Video | UserError]:
    """Return what is known of each video, or why nothing is."""
    found: dict[Path, Video | UserError] = {}
    if not paths:
        return found
    library(f"video {printable(paths[0].name)}")
    with counting_bar(len(paths), "videos", "file") as bar:
        for path in paths:
            try:
                found[path] = probe(path)
            except UserError as error:
                found[path] = error
            bar.update()
    return found


def _notes(videos: Sequence[Video], looked_at: int, fps: float | None) -> list[str]:
    if not videos:
        return []
    every = sum(map(len, videos))
    note = f"{looked_at:,} of {every:,} frames of {len(videos)} videos"
    if fps is None:
        note += " (--fps N takes N a second)"
    cut = [video for video in videos if len(video) < video.promised]
    if not cut:
        return [note]
    shown = [f"{printable(v.path.name)}: {len(v)} of {v.promised} frames" for v in cut]
    return [note, f"{len(cut)} videos end too early: what is there is used ({few(shown, 3)})"]
