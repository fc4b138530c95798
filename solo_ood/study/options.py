"""The options of ``solo-ood study``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from solo_ood.options.field import option

EPILOG = """\
studies that come with the package:
  digits-lt       the embedded digits, on a CPU
  digits-ratio    the same, a perfect detector at three ratios
  digits-sixteenth that detector at 1/16, in 10 other pairs
  mnist-lt        MNIST (pip install 'solo-ood[study]'), on a CPU
  imagefolder     any ImageFolder: --data DIR, with train and test in it
  cifar10-lt      the same for CIFAR-10, with the protocol of SDCLR
  imagenet100-lt  the same for ImageNet-100
  bdd100k         long-tailed as it is: --data DIR, with train, reference, test

examples:
  solo-ood study digits-lt --out study --jobs 2
  solo-ood study my-study.yaml --out study
  solo-ood study cifar10-lt --data CIFAR --out study --cell 3   # one cell
"""


@dataclass(frozen=True)
class StudyOptions:
    """What ``solo-ood study`` is asked to do.

    Attributes:
        data: of a study whose data are the user's.
        cell: the number of the only one to run, from 0; ``None`` = all, then the tables.
        command: as the user wrote it, for the report.
    """

    config: str = option(help="a study's name, or its YAML", positional=True)
    out: Path = option(help="folder of results; what is there is not made again", metavar="DIR")
    data: Path | None = option(None, "folder with train and test, for some studies", metavar="DIR")
    jobs: int = option(os.cpu_count() or 1, "cells at the same time", at_least=1)
    cell: int | None = option(None, "run this cell alone, without tables", at_least=0)
    list: bool = option(False, "print the numbers of the cells and end")
    tables: bool = option(False, "make the tables of what is there and end")
    keep: bool = option(False, "keep checkpoints and logs of training")
    program: Path | None = option(
        None, "main_pretrain.py of a checkout of solo-learn, where one is installed", metavar="PY"
    )
    command: str = ""
