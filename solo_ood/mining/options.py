"""The options of ``solo-ood rank``, nested by what they are about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solo_ood.detection.detectors import DETECTORS
from solo_ood.embedding.options import ExtractConfig
from solo_ood.options.field import LARGEST_SEED, group, option

EPILOG = """\
networks: see solo-ood measure --help.

examples:
  solo-ood rank FRAMES --embedder dino_vits16:FILE --top 500
  solo-ood rank FRAMES --embedder dino_vits16:FILE --exemplars A.jpg B.jpg
  solo-ood rank FRAMES --embedder dino_vits16:FILE --boxes BOXES.csv \\
    --clip-pattern '^([^_]+)' --link PICKED
"""


EXPORTS = ("coco", "fiftyone", "cvat", "label-studio", "yolo")


def _by_help() -> str:
    return (
        f"{', '.join(DETECTORS)}; default: exemplar-regions with boxes or masks, exemplar with "
        "exemplars, else knn"
    )


@dataclass(frozen=True)
class Data:
    """The unlabelled images."""

    path: Path = option(
        help="a folder of images of any depth, a .txt, .csv or .parquet that lists them (column "
        "path, and clip if you like), BDD100K's layout, or a video or a folder of videos",
        metavar="FRAMES",
        positional=True,
    )
    clip_pattern: str | None = option(
        None,
        "regular expression for the names of the files, whose first group is the clip; default: "
        "the column clip, folders, or videos",
        metavar="REGEX",
    )
    fps: float | None = option(
        None, "of videos: frames a second to look at, at most; default: all", above=0
    )


@dataclass(frozen=True)
class Network:
    """What the images are embedded by."""

    spec: str = option(help="network, as for measure", name="embedder", metavar="SPEC")
    stage: str = option("last", "last, pooled, or the number of a stage", metavar="STAGE")
    keep_patches: bool = option(
        False, "keep features of parts, too: boxes given later need no second embedding"
    )


@dataclass(frozen=True)
class Wanted:
    """What is looked for."""

    by: str | None = option(None, _by_help, metavar="DETECTOR")
    exemplars: tuple[str, ...] = option(
        (), "images that show what matters, of the data or not", metavar="IMAGE"
    )
    boxes: Path | None = option(
        None,
        "boxes around what matters in images, which then are the exemplars: "
        "path,left,top,right,bottom (pixels), or JSON of COCO or BDD100K",
        metavar="FILE",
    )
    rare: tuple[str, ...] = option(
        (),
        "classes that matter: of --boxes JSON, or in the masks of --exemplars (BDD100K's layout)",
        metavar="CLASS",
    )


@dataclass(frozen=True)
class Taught:
    """What was said of earlier lists."""

    feedback: tuple[Path, ...] = option(
        (),
        "sheets of path,rare (yes or no; for yes also left,top,right,bottom): the ranking is "
        "refitted at once, and names what to look at next",
        metavar="CSV",
    )


@dataclass(frozen=True)
class Fair:
    """How no image vouches for itself, nor for its neighbours."""

    block: int | None = option(
        None,
        "neighbouring images that are one scene; default: a clip, or each image by itself",
        at_least=1,
    )
    folds: int = option(5, "parts that are scored by a detector of the others", at_least=2)
    fit_on: int = option(20_000, "images that a detector learns from, at most", at_least=4)
    seed: int = option(0, "of draws", at_least=0, at_most=LARGEST_SEED)


@dataclass(frozen=True)
class Scenes:
    """How the list is one of different scenes."""

    top: int = option(500, "scenes to choose", at_least=1)
    per_clip: int | None = option(None, "scenes of a clip, at most; default: any", at_least=1)
    min_distance: float | None = option(
        None,
        "cosine distance within which images stand behind one of them; default: a quarter of the "
        "median distance of two images; 0 = none do",
        at_least=0,
        at_most=2,
    )
    diverse: bool = option(
        False, "of the 10 N highest scores take those that are farthest from each other"
    )


@dataclass(frozen=True)
class Output:
    """What is written."""

    folder: Path = option(Path("rank"), "folder of the results", name="out", metavar="DIR")
    link: Path | None = option(
        None,
        "new folder of links to the chosen images, named by rank; frames of videos as images",
        metavar="DIR",
    )
    copies: bool = option(False, "with --link: copies instead of links")
    export: tuple[str, ...] = option(
        (),
        f"the list as pre-annotations for labelling tools: {', '.join(EXPORTS)}",
        choices=EXPORTS,
        metavar="FORMAT",
    )
    for_training: Path | None = option(
        None,
        "file of exemplars for dino_ood: those that are in the data; without any, the first 20 of "
        "the list",
        metavar="FILE",
    )


@dataclass(frozen=True)
class Audit:
    """How good the list is."""

    audit: int | None = option(
        None,
        "draw N images, half of them of the list, and write a sheet of path,rare to fill in",
        at_least=4,
    )
    audited: Path | None = option(
        None, "the sheet, filled in with yes and no: print what it says of the list", metavar="CSV"
    )


@dataclass(frozen=True)
class RankOptions:
    """What ``solo-ood rank`` is asked to do.

    Attributes:
        command: as the user wrote it, for the report.
    """

    data: Data = group("data")
    network: Network = group("network")
    wanted: Wanted = group("what is looked for", Wanted)
    taught: Taught = group("what is known by now", Taught)
    scenes: Scenes = group("scenes", Scenes)
    fair: Fair = group("fairness", Fair)
    checked: Audit = group("how good the list is", Audit)
    embedding: ExtractConfig = group("embedding", ExtractConfig)
    output: Output = group("output", Output)
    command: str = ""
