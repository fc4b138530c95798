"""The list itself: of every image its rank, its score, and behind whom it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from solo_ood.data.frames import Frames
from solo_ood.data.videos import frame_of
from solo_ood.detection.boxes import Box
from solo_ood.mining.cross_fit import position_in_clip
from solo_ood.mining.scenes import NONE, Scenes

# What became of an image; together all of them.
STATES = {
    "chosen": "scenes chosen, one image each",
    "like": "like one of these, or of a clip with enough scenes",
    "further": "further down the list, not compared with each other",
    "exemplar": "exemplars, or answered with yes",
    "no": "answered with no",
    "known": "like one of these",
    "unreadable": "not readable, or without features",
    "missing": "no such file",
}


@dataclass(frozen=True)
class Entry:
    """An image of the list.

    Attributes:
        state: a key of ``STATES``.
        path: of the file.
        clip: it is from; "" = not known.
        frame: the how-manieth image of its clip, or of its video, from 0.
        rank: from 1, of scenes; ``None`` = it stands behind another image, or has no rank.
        score: NaN = none.
        percentile: share (%) of the ranked images with a lower score.
        representative: whom it stands behind, itself for a scene; ``None`` = of no scene.
        like: how many images stand behind it.
        box: around its best region, in pixels of the image as it is shown.
        seconds: from the start of its video; ``None`` = it is of none.
    """

    state: str
    path: Path
    clip: str
    frame: int
    rank: int | None = None
    score: float = float("nan")
    percentile: float = float("nan")
    representative: Path | None = None
    like: int = 0
    box: Box | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Ranking:
    """All images, best first: each scene, those behind it, then what has no rank."""

    entries: tuple[Entry, ...]

    @property
    def chosen(self) -> list[Entry]:
        """The scenes that were asked for, by rank."""
        return [entry for entry in self.entries if entry.state == "chosen"]

    def counts(self) -> dict[str, int]:
        """Return how many images are in which state; together they are all."""
        found = Counter(entry.state for entry in self.entries)
        return {state: found[state] for state in STATES if found[state]}


def build(
    frames: Frames,
    kept: Sequence[Path],
    scores: np.ndarray,
    scenes: Scenes,
    exemplars: Sequence[int],
    boxes: Sequence[Box | None] = (),
    refused: Sequence[int] = (),
) -> Ranking:
    """Return the list.

    Args:
        frames: the N images that were asked for.
        kept: M of them that could be embedded, in the same order.
        scores: (M,) of these.
        scenes: of these.
        exemplars: rows of these that are exemplars.
        boxes: M evidence boxes; () = there are none.
        refused: rows of these that are known to be not rare.
    """
    about = {
        path: (clip, frame)
        for path, clip, frame in zip(frames.paths, frames.clips, _places(frames))
    }
    known = {**dict.fromkeys(exemplars, "exemplar"), **dict.fromkeys(refused, "no")}
    ranks = _ranks(scores, scenes)
    percentiles = _percentiles(scores)
    like = Counter(scenes.behind[scenes.behind != NONE].tolist())
    entries = []
    for row, path in enumerate(kept):
        leader = int(scenes.behind[row])
        entry = Entry(
            _state(row, leader, known),
            path,
            *about[path],
            ranks.get(row),
            float(scores[row]),
            float(percentiles[row]),
            None if leader == NONE else kept[leader],
            max(0, like[row] - 1) if leader == row else 0,
            boxes[row] if boxes else None,
            frames.seconds.get(path),
        )
        first = ranks.get(row if leader == NONE else leader, len(kept) + 1)
        entries.append(((first, row != leader, -entry.score), entry))
    ordered = [entry for _, entry in sorted(entries, key=lambda pair: pair[0])]
    there = set(kept)
    gone = [Entry("unreadable", path, *about[path]) for path in frames.paths if path not in there]
    gone += [Entry("missing", path, "", 0) for path in frames.missing]
    return Ranking((*ordered, *gone))


def _places(frames: Frames) -> list[int]:
    """Return the how-manieth image of its clip each is; of a frame of a video its number."""
    places = position_in_clip(frames.clips).tolist()
    for row, path in enumerate(frames.paths):
        if path in frames.seconds and (frame := frame_of(path)):
            places[row] = frame[1]
    return places


def _ranks(scores: np.ndarray, scenes: Scenes) -> dict[int, int]:
    """Return the rank of every image that has one: the chosen ones, then the rest by score."""
    order = np.argsort(-scores, kind="stable")
    rest = [int(row) for row in order if scenes.behind[row] == NONE]
    return {row: rank for rank, row in enumerate([*scenes.chosen.tolist(), *rest], 1)}


def _percentiles(scores: np.ndarray) -> np.ndarray:
    """Return (M,) the share (%) of the scores that are lower than each; NaN for NaN."""
    finite = np.sort(scores[np.isfinite(scores)])
    lower = np.searchsorted(finite, scores, side="left") / max(1, len(finite))
    return np.where(np.isfinite(scores), 100 * lower, np.nan)


def _state(row: int, leader: int, known: dict[int, str]) -> str:
    if row in known:
        return known[row]
    if leader == NONE:
        return "further"
    if leader in known:
        return "known"
    return "chosen" if leader == row else "like"
