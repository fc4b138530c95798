"""The options of ``solo-ood stream``, nested by what they are about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solo_ood.embedding.options import SIDE
from solo_ood.options.field import group, option
from solo_ood.settings.choices import THRESHOLDS
from solo_ood.settings.schema import MOST_KEPT

BY = ("knn", "mahalanobis")  # the scorers that need neither labels nor exemplars

EPILOG = """\
networks: see solo-ood measure --help.

examples:
  detector | solo-ood stream --percentile 0.99 > verdicts.csv
  solo-ood stream --frames INBOX --embedder dino_vits16:FILE --follow \\
    --state inbox.state --out verdicts.csv
"""


@dataclass(frozen=True)
class Source:
    """What the stream is of."""

    frames: str | None = option(
        None,
        "a folder of images, or - for their paths on standard input, a line each; default: "
        "scores there, a line each: SCORE, or NAME,SCORE",
        metavar="DIR",
    )
    from_start: bool = option(
        False, "of standard input: it starts over, so pass by what --state knows was taken in"
    )
    follow: bool = option(False, "of a folder: wait for images that come later")
    poll: float = option(1.0, "with --follow: seconds between two looks", above=0)
    idle: float | None = option(
        None,
        "with --follow: end when nothing has come for so many seconds; default: never",
        above=0,
    )


@dataclass(frozen=True)
class Scoring:
    """How frames get scores, each from those before it."""

    spec: str | None = option(
        None, "network, as for measure; frames need one", name="embedder", metavar="SPEC"
    )
    by: str = option("knn", "the detector:", choices=BY)
    n_reference: int = option(1024, "frames remembered", at_least=2, at_most=MOST_KEPT)
    min_samples: int = option(256, "frames before the first that gets a score", at_least=2)
    image_size: int = option(SIDE, "pixels of the shorter side", at_least=1)
    batch_size: int = option(32, "images at a time", at_least=1)


@dataclass(frozen=True)
class Judging:
    """Which scores are rare."""

    threshold: str = option("quota", "the threshold:", choices=tuple(THRESHOLDS))
    percentile: float = option(0.95, "share of the stream that is not rare", above=0, below=1)
    upper_percentile: float | None = option(
        None, "share above which nothing is rare, either: a band", above=0, below=1
    )
    n: int | None = option(
        None,
        "items of a block; the verdicts on it come when it is full; default: 100 / (1 - "
        "percentile)",
        at_least=2,
        at_most=MOST_KEPT,
    )


@dataclass(frozen=True)
class Kept:
    """Where verdicts and state go."""

    out: Path | None = option(
        None, "CSV of name,score,rare, which is continued; default: standard output", metavar="CSV"
    )
    state: Path | None = option(
        None, "file by which the next call goes on where this one was stopped", metavar="FILE"
    )


@dataclass(frozen=True)
class StreamOptions:
    """What ``solo-ood stream`` is asked to do."""

    source: Source = group("source", Source)
    scoring: Scoring = group("scores of frames", Scoring)
    judging: Judging = group("threshold", Judging)
    kept: Kept = group("output", Kept)
