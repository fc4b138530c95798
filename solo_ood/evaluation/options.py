"""The options of ``solo-ood evaluate``: their defaults and their command line."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from solo_ood.cache import cache_folder
from solo_ood.text import seed_of, user_path

METHODS = ("knn", "linear")
WEIGHTS = ("teacher", "student")

EPILOG = """what is evaluated on what, unless you say it:
  --train  the run's own training folder; of the embedded digits, their balanced reference
  --val    the run's own validation folder
  --tail   the run's own training folder: its counts say which classes are Many, Medium, Few

examples:
  solo-ood evaluate trained_models/dino_ood/0
  solo-ood evaluate trained_models/dino_ood/0 --train BALANCED --val VAL --weights teacher
  solo-ood evaluate trained_models/dino_ood/0/NAME-0-ep=99.ckpt --methods knn --k 5 20 200
"""


@dataclass(frozen=True)
class EvaluateOptions:
    """What ``solo-ood evaluate`` is asked to do; the options of the command line, by name.

    Attributes:
        run: a run's folder, or one of its checkpoints.
        train, val, tail: ImageFolders or CSVs; ``None`` = the run's own.
        out: folder of the files; ``None`` = the run's.
        weights: ``teacher``, ``student``; ``()`` = those that the checkpoint has.
        methods: ``knn``, ``linear``.
        k, temperature: of the k-NN; every pair is evaluated.
        image_size: pixels; ``None`` = the run's crop size.
        max_unreadable: share of the images that may be left out, in [0, 1].
    """

    run: Path
    train: Path | None = None
    val: Path | None = None
    tail: Path | None = None
    out: Path | None = None
    weights: Sequence[str] = ()
    methods: Sequence[str] = METHODS
    k: Sequence[int] = (20,)
    temperature: Sequence[float] = (0.07,)
    seed: int = 0
    cache: Path | None = None
    image_size: int | None = None
    batch_size: int = 64
    num_workers: int = 2
    accelerator: str = "auto"
    devices: int | str = 1
    max_unreadable: float = 0.01
    command: str = ""

    @property
    def cache_folder(self) -> Path:
        """Where embeddings are kept."""
        return self.cache or cache_folder() / "embeddings"


def add_arguments(command: ArgumentParser) -> None:
    """Add the options of ``evaluate`` to its parser."""
    default = {field.name: field.default for field in fields(EvaluateOptions)}
    command.formatter_class = RawDescriptionHelpFormatter
    command.epilog = EPILOG
    add = command.add_argument
    add("run", type=user_path, help="folder with a .ckpt and args.json, or a .ckpt")
    add("--train", type=user_path, metavar="DIR", help="labelled reference; default: see below")
    add(
        "--val",
        type=user_path,
        metavar="DIR",
        help="labelled images to classify; default: see below",
    )
    add("--tail", type=user_path, metavar="DIR", help="what defines the groups; default: see below")
    add("--out", type=user_path, help="folder of evaluation.{json,csv,md}; default: RUN")
    add("--weights", nargs="+", choices=WEIGHTS, default=(), help="default: all that are there")
    add("--methods", nargs="+", choices=METHODS, default=METHODS, help="default: both")
    add("--k", nargs="+", type=count, default=default["k"], help="neighbours (default: 20)")
    add(
        "--temperature", nargs="+", type=positive, default=default["temperature"], metavar="T",
        help="of the k-NN's weights exp(cosine / T) (default: 0.07)",
    )  # fmt: skip
    add("--seed", type=seed_of, default=default["seed"], help="of what the probe holds out")
    add("--cache", type=user_path, help="folder of the embeddings; default: below $SOLO_OOD_CACHE")
    add("--image-size", type=count, help="pixels; default: the run's crop size")
    add("--batch-size", type=count, default=default["batch_size"])
    add("--num-workers", type=natural, default=default["num_workers"])
    add("--accelerator", default=default["accelerator"], help="as Lightning's")
    add("--devices", type=devices, default=default["devices"], help="as Lightning's")
    add(
        "--max-unreadable", type=share, default=default["max_unreadable"], metavar="SHARE",
        help="of the images that may be left out (default: %(default)s)",
    )  # fmt: skip


def options_of(args: Namespace, command: str) -> EvaluateOptions:
    """Return the options that the command line gave."""
    known = {field.name for field in fields(EvaluateOptions)}
    given = {name: value for name, value in vars(args).items() if name in known}
    return EvaluateOptions(**{**given, "command": command})


# argparse shows the names of these functions: "invalid count value: 'x'".
def natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ArgumentTypeError(f"expected 0 or more, got {text}")
    return value


def count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ArgumentTypeError(f"expected at least 1, got {text}")
    return value


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"expected more than 0, got {text}")
    return value


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"expected a share from 0 to 1, got {text}")
    return value


def devices(text: str) -> int | str:
    return text if text == "auto" else count(text)
