"""The options of ``solo-ood data longtail``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solo_ood.options.field import LARGEST_SEED, option

ORDERS = ("random", "name", "size")
LINKS = ("absolute", "relative")

EPILOG = """\
OUT gets train/CLASS/..., with --reference also reference/CLASS/... (as many
of each class, none of them in train), and longtail.json: counts, order, seed.
The same source, options and seed give the same subset.

examples:
  solo-ood data longtail cifar10/train cifar10-lt --imbalance 100 --seed 0
  solo-ood data longtail IMAGES OUT --imbalance 50 --order size --reference 20
  solo-ood data longtail IMAGES OUT --imbalance 10 --order cat dog bird
"""


@dataclass(frozen=True)
class LongtailOptions:
    """What ``solo-ood data longtail`` is asked to do.

    Attributes:
        source: an ImageFolder.
        out: a folder that does not exist yet, or is empty.
        imbalance: images of the largest class / those of the smallest.
        seed: of the draws, and of the order ``random``.
        order: of the classes, the most frequent first: ``random``, ``name``, ``size`` or all names.
        reference: images per class that ``train`` leaves for a balanced set.
        largest: images of the largest class; 0 = as many as the classes have for the profile.
        links: how the links name the images.
        copy: whether to copy the images in their place.
    """

    source: Path = option(help="folder of class folders", positional=True, metavar="SRC")
    out: Path = option(help="folder that does not exist yet, or is empty", positional=True)
    imbalance: float = option(
        100.0, "images of the largest class / those of the smallest", at_least=1
    )
    seed: int = option(
        0, "of what is drawn, and of the order random", at_least=0, at_most=LARGEST_SEED
    )
    order: tuple[str, ...] = option(
        ("random",),
        "of the classes, the most frequent first: random (by the seed), name, size (as the source "
        "has them), or the names of all",
    )
    reference: int = option(0, "images of each class kept for a balanced set", at_least=0)
    largest: int = option(
        0, "images of the largest class; 0 = as many as the classes allow", at_least=0
    )
    links: str = option("absolute", "paths in the links", choices=LINKS)
    copy: bool = option(False, "copy the images, where links are impossible")
