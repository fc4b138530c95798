"""The options of ``solo-ood detect``: their defaults and their command line."""

from __future__ import annotations

from argparse import (
    Action,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
    RawDescriptionHelpFormatter,
)
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from solo_ood.cache import cache_folder
from solo_ood.data.rare import POSTER_BASE_RATE
from solo_ood.detection.detectors import DETECTORS
from solo_ood.detection.plan import Plan
from solo_ood.text import seed_of, user_path

PROJECTIONS = ("pca", "tsne", "umap")
# All but those that store every patch on the disk.
DEFAULT_DETECTORS = tuple(name for name, entry in DETECTORS.items() if not entry.patches)
# Pixels of the shorter side: on driving frames what matters is small.
DEFAULT_SIZES = {"bdd": 512, "folder": 224, "csv": 224}


@dataclass(frozen=True)
class DetectOptions:
    """What ``solo-ood detect`` is asked to do; the options of the command line, by name."""

    data: Path
    embedders: Sequence[str]
    out: Path
    cache: Path
    rare: Sequence[str] = ()
    min_share: float | None = None
    base_rate: float = POSTER_BASE_RATE
    each_split: bool = False
    imbalance: float | None = None
    class_order: int = 0
    cross_fit: bool = False
    stage: str = "last"
    image_size: int | None = None
    detectors: Sequence[str] = DEFAULT_DETECTORS
    exemplars: Sequence[str] = ()
    boxes: Path | None = None
    poster: bool = False
    projection: str = "pca"
    thumbnails: bool = False
    batch_size: int = 32
    num_workers: int = 2
    accelerator: str = "auto"
    devices: int | str = 1
    num_nodes: int = 1
    max_unreadable: float = 0.01
    command: str = ""
    plan: Plan = field(default_factory=Plan)


EPILOG = """networks (several --embedder are shown side by side):
  resnet50:WEIGHTS.pth                    any timm name and a file of weights
  vit_small_patch14_dinov2.lvd142m:pretrained    timm downloads them
  dino_vits16:dino_deitsmall16_pretrain.pth      DINO's and DINOv2's own files
  trained_models/dino_ood/0/NAME.ckpt:teacher    a solo-learn checkpoint, teacher or student
  resnet18:random                         untrained, as a control

examples:
  solo-ood detect BDD --rare person+bicycle rider --embedder dino_vits16:FILE
  solo-ood detect IMAGEFOLDER --imbalance 100 --cross-fit --embedder resnet18:FILE
  solo-ood detect BDD --rare rider --exemplars 12 57 train/a1.jpg --embedder CKPT
  solo-ood detect BDD --rare rider --detectors exemplar-regions --embedder dino_vits16:FILE
"""


class Extend(Action):
    """Join the values of an option that is given several times, which replace the default.

    argparse's own ``extend`` adds to the default, and to nothing but lists.
    """

    def __call__(self, parser: Any, namespace: Namespace, values: Any, option: Any = None) -> None:
        before = getattr(namespace, self.dest)
        joined = values if before is self.default else [*before, *values]
        setattr(namespace, self.dest, joined)


def add_arguments(command: ArgumentParser) -> None:
    """Add the options of ``detect`` to its parser."""
    defaults, plan = {f.name: f.default for f in fields(DetectOptions)}, Plan()
    command.formatter_class = RawDescriptionHelpFormatter
    command.epilog = EPILOG
    add = command.add_argument
    add(
        "data",
        type=user_path,
        help="BDD100K's layout, an ImageFolder, or a .csv of path,label[,split]",
    )
    add(
        "--embedder",
        nargs="+",
        action=Extend,
        required=True,
        metavar="SPEC",
        help="networks, see below",
    )
    add(
        "--out",
        type=user_path,
        default=Path("detect"),
        help="folder of the results (default: detect)",
    )
    add("--cache", type=user_path, help="folder of the embeddings; default: below $SOLO_OOD_CACHE")

    rare = command.add_argument_group("what is rare")
    add = rare.add_argument
    add(
        "--rare",
        nargs="+",
        action=Extend,
        default=(),
        metavar="CLASS[+CLASS]",
        help="definitions; tail = by count",
    )
    add("--min-share", type=share_or_0, help="of an image's pixels; default: from --base-rate")
    add(
        "--base-rate",
        type=share,
        default=POSTER_BASE_RATE,
        help="share of the fit split's images that the pixel share is to make rare "
        "(default: %(default)s, the poster's)",
    )
    add(
        "--base-rate-of",
        choices=["fit", "each"],
        default="fit",
        help="each: on the test split the pixel share comes from its own labels",
    )
    add("--imbalance", type=ratio, help="make an ImageFolder long-tailed: largest / smallest class")
    add(
        "--class-order",
        type=seed_of,
        default=0,
        metavar="SEED",
        help="which classes become rare",
    )
    add("--cross-fit", action="store_true", help="test on the fit split, by folds")

    how = command.add_argument_group("how it is measured")
    add = how.add_argument
    add(
        "--detectors",
        nargs="+",
        action=Extend,
        default=list(DEFAULT_DETECTORS),
        choices=[*DETECTORS, "all"],
        metavar="NAME",
        help=f"{', '.join(DETECTORS)}, or all (default: those that need no patches)",
    )
    add(
        "--exemplars",
        nargs="+",
        action=Extend,
        default=(),
        metavar="IMAGE",
        help="paths or indexes: what matters",
    )
    add(
        "--boxes",
        type=user_path,
        metavar="CSV",
        help="path,left,top,right,bottom (pixels): its images are the exemplars, the boxes their "
        "regions for exemplar-regions; default: the pixels of the classes in their masks",
    )
    add("--n-exemplars", type=count, default=plan.n_exemplars, help="drawn if none are named")
    add("--draws", type=count, default=plan.draws, help="of exemplars (default: %(default)s)")
    add(
        "--sizes",
        nargs="+",
        action=Extend,
        type=size,
        default=list(plan.sizes),
        metavar="N",
        help="or all",
    )
    add(
        "--percentiles", nargs="+", action=Extend, type=share, default=list(plan.percentiles),
        metavar="P", help="share that is not flagged (default: .99 .95 .9 .8)",
    )  # fmt: skip
    add("--repeats", type=count, default=plan.repeats, help="subsets of a size, and seeds")
    add("--folds", type=count, default=plan.folds, help="of the scores that set the thresholds")
    add("--bootstrap", type=count, default=plan.bootstrap, help="samples for the intervals")
    add(
        "--block",
        type=count,
        default=plan.block,
        help="neighbouring images (of a video) kept together in folds and bootstrap samples",
    )
    add("--seed", type=seed_of, default=plan.seed)

    images = command.add_argument_group("embedding")
    add = images.add_argument
    add("--stage", default="last", help="last (default), pooled, or the number of a stage")
    add("--image-size", type=count, help="pixels of the shorter side; BDD100K 512, others 224")
    add("--batch-size", type=count, default=defaults["batch_size"])
    add("--num-workers", type=whole_number, default=defaults["num_workers"])
    add("--accelerator", default="auto", help="as Lightning's")
    add("--devices", type=devices, default=1, help="as Lightning's: a number, or auto")
    add("--num-nodes", type=count, default=1)
    add(
        "--max-unreadable",
        type=share_or_0,
        default=defaults["max_unreadable"],
        help="share left out",
    )

    shown = command.add_argument_group("report")
    add = shown.add_argument
    add("--projection", choices=PROJECTIONS, default="pca")
    add("--thumbnails", action="store_true", help="show images in the scatter")
    add("--poster", action="store_true", help="show the poster's table beside ours")


def options_of(args: Namespace, command: str) -> DetectOptions:
    """Return the options that were given on the command line."""
    plan = Plan(
        sizes=tuple(args.sizes),
        percentiles=tuple(sorted(set(args.percentiles), reverse=True)),
        folds=args.folds,
        repeats=args.repeats,
        n_exemplars=args.n_exemplars,
        draws=args.draws,
        bootstrap=args.bootstrap,
        block=args.block,
        seed=args.seed,
    )
    same = {f.name: getattr(args, f.name) for f in fields(DetectOptions) if f.name in args}
    same |= {"embedders": args.embedder, "plan": plan, "command": command}
    same |= {"each_split": args.base_rate_of == "each"}
    same |= {"cache": args.cache or cache_folder() / "embeddings"}
    return DetectOptions(**same)


# argparse shows the names of these functions: "invalid share value: 'x'".
def share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise ArgumentTypeError(f"expected a share in (0, 1), got {text}")
    return value


def share_or_0(text: str) -> float:
    return 0.0 if float(text) == 0 else share(text)


def whole_number(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ArgumentTypeError(f"expected 0 or more, got {text}")
    return value


def ratio(text: str) -> float:
    value = float(text)
    if not 1 <= value < float("inf"):
        raise ArgumentTypeError(f"expected 1 or more, got {text}")
    return value


def count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ArgumentTypeError(f"expected at least 1, got {text}")
    return value


def size(text: str) -> int | None:
    return None if text == "all" else count(text)


def devices(text: str) -> int | str:
    return text if text == "auto" else count(text)
