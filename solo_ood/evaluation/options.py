"""The options of ``solo-ood evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from solo_ood.embedding.options import ExtractConfig
from solo_ood.options.field import LARGEST_SEED, group, option

METHODS = ("knn", "linear")
WEIGHTS = ("teacher", "student")

EPILOG = """\
what is evaluated on what, unless you say it:
  --train  the run's own training folder; of the embedded digits, their
           balanced reference
  --val    the run's own validation folder
  --tail   the run's own training folder: its counts say which classes are
           Many, Medium, Few

examples:
  solo-ood evaluate trained_models/dino_ood/0
  solo-ood evaluate trained_models/dino_ood/0 --train BALANCED --val VAL
  solo-ood evaluate trained_models/dino_ood/0/NAME-0-ep=99.ckpt \\
    --methods knn --k 5 20 200
"""


@dataclass(frozen=True)
class EvaluateOptions:
    """What ``solo-ood evaluate`` is asked to do.

    Attributes:
        train: an ImageFolder or CSV; ``None`` = the run's own.
        val: the same.
        tail: the same, of the training classes with few samples.
        weights: ``()`` = those that the checkpoint has.
        k: of the k-NN; every pair of a ``k`` and a ``temperature`` is evaluated.
        temperature: see ``k``.
        command: as the user wrote it, for the files.
    """

    run: Path = option(help="folder with a .ckpt and args.json, or a .ckpt", positional=True)
    train: Path | None = option(None, "labelled reference; default: see below", metavar="DIR")
    val: Path | None = option(
        None, "labelled images to classify; default: see below", metavar="DIR"
    )
    tail: Path | None = option(None, "what defines the groups; default: see below", metavar="DIR")
    out: Path | None = option(
        None, "folder of evaluation.{json,csv,md}; default: RUN", metavar="DIR"
    )
    weights: tuple[str, ...] = option((), "default: all that are there", choices=WEIGHTS)
    methods: tuple[str, ...] = option(METHODS, "of evaluation", choices=METHODS)
    k: tuple[int, ...] = option((20,), "neighbours of the k-NN", at_least=1)
    temperature: tuple[float, ...] = option(
        (0.07,), "of the k-NN's weights exp(cosine / T)", above=0, metavar="T"
    )
    seed: int = option(0, "of what the probe holds out", at_least=0, at_most=LARGEST_SEED)
    embedding: ExtractConfig = group("embedding", partial(ExtractConfig, batch_size=64))
    command: str = ""
