"""The options of ``solo-ood measure``, nested by what they are about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solo_ood.benchmark.plan import Plan
from solo_ood.data.rare import POSTER_BASE_RATE
from solo_ood.detection.detectors import DETECTORS
from solo_ood.embedding.options import ExtractConfig
from solo_ood.options.field import LARGEST_SEED, group, option

PROJECTIONS = ("pca", "tsne", "umap")

EPILOG = """\
networks (several --embedder are shown side by side):
  resnet50:WEIGHTS.pth                         any timm name, a file of weights
  vit_small_patch14_dinov2.lvd142m:pretrained  timm downloads them
  dino_vits16:dino_deitsmall16_pretrain.pth    DINO's and DINOv2's own files
  trained_models/dino_ood/0/NAME.ckpt:teacher  a solo-learn checkpoint, its
                                               teacher or student
  resnet18:random                              untrained, as a control

examples:
  solo-ood measure BDD --rare person+bicycle rider --embedder dino_vits16:FILE
  solo-ood measure BDD --rare rider --embedder CKPT \\
    --exemplars 12 57 train/a1.jpg
  solo-ood measure BDD --rare rider --embedder dino_vits16:FILE \\
    --detectors exemplar-regions
  solo-ood measure IMAGEFOLDER --embedder resnet18:FILE \\
    --imbalance 100 --cross-fit
"""


def _detector_help() -> str:
    return f"{', '.join(DETECTORS)}, or all; default: those that need no patches"


@dataclass(frozen=True)
class Data:
    """The labelled images."""

    path: Path = option(
        help="BDD100K's layout, an ImageFolder, or a .csv of path,label[,split]",
        metavar="DATA",
        positional=True,
    )
    imbalance: float | None = option(
        None, "make an ImageFolder long-tailed: largest / smallest class", at_least=1
    )
    class_order: int = option(
        0, "which classes become rare", at_least=0, at_most=LARGEST_SEED, metavar="SEED"
    )
    cross_fit: bool = option(False, "test on the fit split, by folds")


@dataclass(frozen=True)
class Networks:
    """What the images are embedded by."""

    specs: tuple[str, ...] = option(help="networks, see below", name="embedder", metavar="SPEC")
    stage: str = option("last", "last, pooled, or the number of a stage", metavar="STAGE")


@dataclass(frozen=True)
class Rare:
    """Which images count as rare, see ``RareDefinition``."""

    names: tuple[str, ...] = option(
        (), "definitions; tail = by count", name="rare", metavar="CLASS[+CLASS]"
    )
    min_share: float | None = option(
        None, "of an image's pixels; default: from --base-rate", at_least=0, below=1
    )
    base_rate: float = option(
        POSTER_BASE_RATE,
        "share of the fit split's images that the pixel share is to make rare; as on the poster",
        above=0,
        below=1,
    )
    base_rate_of: str = option(
        "fit",
        "each: on the test split the pixel share comes from its own labels",
        choices=("fit", "each"),
    )


@dataclass(frozen=True)
class Choice:
    """The detectors, and the exemplars for those that need some."""

    names: tuple[str, ...] = option((), _detector_help, name="detectors", metavar="NAME")
    exemplars: tuple[str, ...] = option((), "paths or indexes: what matters", metavar="IMAGE")
    boxes: Path | None = option(
        None,
        "path,left,top,right,bottom (pixels), or JSON of COCO or BDD100K: its images are the "
        "exemplars, the boxes their regions for exemplar-regions; default: the pixels of the "
        "classes in their masks",
        metavar="FILE",
    )


@dataclass(frozen=True)
class Output:
    """What is written and shown."""

    folder: Path = option(Path("measure"), "folder of the results", name="out", metavar="DIR")
    projection: str = option("pca", "of the scatter", choices=PROJECTIONS)
    thumbnails: bool = option(False, "show images in the scatter")
    poster: bool = option(False, "show the poster's table beside ours")


@dataclass(frozen=True)
class MeasureOptions:
    """What ``solo-ood measure`` is asked to do.

    Attributes:
        command: as the user wrote it, for the report.
    """

    data: Data = group("data")
    networks: Networks = group("networks")
    rare: Rare = group("what is rare", Rare)
    detectors: Choice = group("detectors", Choice)
    plan: Plan = group("how it is measured", Plan)
    embedding: ExtractConfig = group("embedding", ExtractConfig)
    output: Output = group("output", Output)
    command: str = ""
