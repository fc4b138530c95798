"""Which clip each image is from: by a pattern, its list, its folder or its video."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from solo_ood.data.videos import file_of
from solo_ood.errors import UserError
from solo_ood.files.text import printable

if TYPE_CHECKING:
    from solo_ood.data.frames import Frames

NUMBERED = r"^(.*?)[-_. ]*\d+$"  # a name that ends in a number: what is before it may be a clip's


def clips_of(frames: Frames, pattern: str | None) -> tuple[list[str], list[str]]:
    """Return the clip of each image, and notes."""
    if pattern is not None:
        return _by_pattern(frames, pattern)
    videos = [
        printable(frames.name(path.parent)) for path in frames.paths if path in frames.seconds
    ]
    if len(videos) == len(frames):
        return _of_videos(frames, videos)
    if any(frames.clips) or frames.layout == "bdd":
        return list(frames.clips), []
    folders = [printable(frames.name(path.parent)) for path in frames.paths]
    if len(set(folders)) > 1:
        return folders, [f"{len(set(folders))} folders are taken for as many clips"]
    starts = [match and match[1] for path in frames.paths if (match := _numbered(path))]
    notes = []
    if len(starts) > len(frames) / 2:
        notes.append(
            "no clips are known: each image counts by itself. If these are frames of videos, "
            f"--clip-pattern '{NUMBERED}' tells {len(set(starts))} apart by what stands before the "
            "number of the frame, or --block N takes N neighbours for a scene"
        )
    return [""] * len(frames), notes


def _of_videos(frames: Frames, videos: list[str]) -> tuple[list[str], list[str]]:
    clips = [clip or video for clip, video in zip(frames.clips, videos)]
    if len(set(clips)) > 1:
        return clips, []
    return clips, [
        "all frames are of one video: each counts by itself; --block N takes N neighbours for a "
        "scene, so that they do not vouch for each other"
    ]


def _numbered(path: Path) -> re.Match[str] | None:
    return re.match(NUMBERED, path.stem)


def _by_pattern(frames: Frames, pattern: str) -> tuple[list[str], list[str]]:
    what = f"--clip-pattern {pattern!r}"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(
            what,
            expected="a regular expression",
            got=str(error),
            remedy=f"For instance '{NUMBERED}', for names that end in the number of the frame.",
        ) from error
    found = [compiled.search(file_of(path).stem) for path in frames.paths]
    if not any(found):
        raise UserError(
            what,
            expected="a pattern that fits names of images, without their suffix",
            got=f"none of {len(frames)}, such as {frames.paths[0].stem}",
            remedy="Try it on one name, for instance by Python's re.search.",
        )
    clips = ["" if m is None else printable(m[1] if m.re.groups else m[0]) for m in found]
    notes = [f"{len({clip for clip in clips if clip})} clips by the pattern"]
    if not all(found):
        notes.append(f"{found.count(None)} images fit no clip: each counts by itself")
    return clips, notes
