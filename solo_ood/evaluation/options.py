"""The options of ``solo-ood evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from solo_ood.embedding.options import ExtractConfig
from solo_ood.options.field import LARGEST_SEED, group, option

METHODS = ("knn", "linear")
WEIGHTS = ("teacher", "student")
HELD_OUT = "held-out"
OF_TRAINING = ("train", "balanced", "1%", "20-shot")
REFERENCES = (HELD_OUT, *OF_TRAINING)

EPILOG = """\
what is evaluated on what, unless you say it:
  --train     the run's own training folder
  --val       the run's own validation folder
  --held-out  --val, by folds: each is classified by what is fitted on the
              others
  --tail      the run's own training folder, else --train: its counts say
              which classes are Many, Medium, Few

references: what the classifiers are fitted on
  held-out    labelled images that were not trained on, as many of each class:
              the main figure
  train       all training images, as frequent as they are
  balanced    of each class as many training images as the rarest has
  1%          of each class that share of its training images, at least one
  20-shot     at most 20 training images of each class

examples:
  solo-ood evaluate trained_models/dino_ood/0
  solo-ood evaluate trained_models/dino_ood/0 --val VAL --held-out BALANCED
  solo-ood evaluate trained_models/dino_ood/0/NAME-0-ep=99.ckpt \\
    --methods knn --k 5 20 200
"""


@dataclass(frozen=True)
class EvaluateOptions:
    """What ``solo-ood evaluate`` is asked to do.

    Attributes:
        train: an ImageFolder or CSV; ``None`` = the run's own.
        val: the same.
        held_out: the same; ``None`` = ``val``, by folds.
        tail: the same, whose counts define Many, Medium and Few.
        references: see ``evaluation.references``.
        weights: ``()`` = those that the checkpoint has.
        k: of the k-NN; every pair of a ``k`` and a ``temperature`` is evaluated.
        temperature: see ``k``.
        command: as the user wrote it, for the files.
    """

    run: Path = option(help="folder with a .ckpt and args.json, or a .ckpt", positional=True)
    train: Path | None = option(None, "labelled training images; default: see below", metavar="DIR")
    val: Path | None = option(
        None, "labelled images to classify; default: see below", metavar="DIR"
    )
    held_out: Path | None = option(
        None, "labelled images that were not trained on; default: see below", metavar="DIR"
    )
    tail: Path | None = option(None, "what defines the groups; default: see below", metavar="DIR")
    out: Path | None = option(
        None, "folder of evaluation.{json,csv,md,png}; default: RUN", metavar="DIR"
    )
    weights: tuple[str, ...] = option((), "default: all that are there", choices=WEIGHTS)
    methods: tuple[str, ...] = option(METHODS, "of evaluation", choices=METHODS)
    references: tuple[str, ...] = option(
        REFERENCES, "see below", choices=REFERENCES, metavar="NAME"
    )
    draws: int = option(
        5, "of the references that are a part of the images; the figure is their mean", at_least=1
    )
    k: tuple[int, ...] = option((20,), "neighbours of the k-NN", at_least=1)
    temperature: tuple[float, ...] = option(
        (0.07,), "of the k-NN's weights exp(cosine / T)", above=0, metavar="T"
    )
    seed: int = option(
        0,
        "of draws, folds, bootstrap and what the probe holds out",
        at_least=0,
        at_most=LARGEST_SEED,
    )
    embedding: ExtractConfig = group("embedding", partial(ExtractConfig, batch_size=64))
    command: str = ""
