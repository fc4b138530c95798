"""What a run is evaluated on: the data that the user or the run names, read and checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from solo_ood.data.labels import file_key
from solo_ood.errors import UserError
from solo_ood.evaluation import data, references
from solo_ood.evaluation.data import Labelled
from solo_ood.evaluation.options import HELD_OUT, OF_TRAINING, REFERENCES, EvaluateOptions
from solo_ood.evaluation.references import Reference
from solo_ood.host.run_folder import RunFiles


@dataclass(frozen=True)
class Task:
    """What the networks are evaluated on.

    Attributes:
        val: the images to classify.
        train: the training images; ``None`` if no reference needs them.
        held_out: labelled images that were not trained on; ``None`` = ``val``, by folds.
        tail: the images whose counts define the groups; ``None`` = no groups.
        classes: names by class id.
        groups: class ids of Many, Medium and Few; {} = none.
        notes: what the user should know.
    """

    val: Labelled
    train: Labelled | None
    held_out: Labelled | None
    tail: Labelled | None
    classes: tuple[str, ...]
    groups: dict[str, list[int]]
    notes: list[str] = field(default_factory=list)

    @property
    def embedded(self) -> dict[str, Labelled]:
        """The images that are embedded, by the name of their option with ``_``."""
        named = {"train": self.train, "val": self.val, "held_out": self.held_out}
        return {name: given for name, given in named.items() if given is not None}

    @property
    def images_of(self) -> np.ndarray | None:
        """(C,) int64, training images by class id; ``None`` if nothing says them."""
        counted = self.tail or self.train
        if counted is None:
            return None
        return np.bincount(counted.targets, minlength=len(self.classes))


def read_task(run: RunFiles, options: EvaluateOptions) -> Task:
    """Read and check the data: the run's own where none are named.

    Raises:
        UserError: for data that are missing, have no labels or do not fit each other.
    """
    train = None
    if set(options.references) & set(OF_TRAINING):
        train = data.read(_named(options.train, _own_train(run), "--train", run), "train")
        if len(np.unique(train.targets)) < 2:
            raise UserError(
                f"--train {train.path}",
                expected="images of at least 2 classes",
                got="one class",
                remedy="Give the folder that holds the class folders.",
            )
    elif options.train is not None:
        train = data.read(options.train, "train")
    classes = train.split.classes if train else None
    val_path = _named(options.val, run.image_folder("val_path"), "--val", run)
    val = data.read(val_path, "val", classes)
    classes = classes or val.split.classes
    held_out = None
    if options.held_out is not None and HELD_OUT in options.references:
        held_out = data.read(options.held_out, "held-out", classes)
        _check_classes(held_out, val)
    notes: list[str] = []
    tail, groups = _groups(run, options, train, val, classes, notes)
    task = Task(val, train, held_out, tail, tuple(classes), groups, notes)
    notes += _leaks(task)
    return task


def _own_train(run: RunFiles) -> Path | None:
    return None if run.setting("data.no_labels") else run.image_folder("train_path")


def _check_classes(held_out: Labelled, val: Labelled) -> None:
    missing = set(val.targets.tolist()) - set(held_out.targets.tolist())
    if missing:
        raise UserError(
            f"--held-out {held_out.path}",
            expected="images of every class of --val",
            got=f"none of {len(missing)} of them",
            remedy="Leave it out: --val is then its own reference, by folds.",
        )


def _groups(
    run: RunFiles,
    options: EvaluateOptions,
    train: Labelled | None,
    val: Labelled,
    classes: tuple[str, ...],
    notes: list[str],
) -> tuple[Labelled | None, dict[str, list[int]]]:
    """Return the images whose counts define the groups, and these; none is a note."""
    tail, own = None, _own_train(run)
    if options.tail is not None:
        tail = data.read(options.tail, "tail", classes)
        groups = data.groups_by(tail, train or val)
    elif own is not None:
        try:
            tail = data.read(own, "tail", classes)
            groups = data.groups_by(tail, train or val)
        except UserError as error:  # another data set, which is fine, or one that is gone
            notes.append(f"no Many, Medium and Few by the run's training folder ({error.got})")
            return None, {}
    elif train is not None:
        tail, groups = train, data.groups_by(train, train)
    else:
        return None, {}
    if len(set(np.bincount(tail.targets)) - {0}) == 1:
        notes.append(f"no Many, Medium and Few: all classes of {tail.path} have as many images")
        return tail, {}
    return tail, groups


def _leaks(task: Task) -> Iterator[str]:
    """Yield a note for each two sets that share images."""
    keys = {name: set(map(file_key, given.split.paths)) for name, given in task.embedded.items()}
    for one, other, why in (
        ("train", "val", "the figures are too good"),
        ("held_out", "val", "the figures are too good"),
        ("train", "held_out", "what is probed was trained on"),
    ):
        if keys.get(one, set()) & keys.get(other, set()):
            yield f"--{one.replace('_', '-')} and --{other.replace('_', '-')} share images: {why}"


def _named(given: Path | None, own: Path | None, option: str, run: RunFiles) -> Path:
    """Return the folder that the user or else the run names, if it is there.

    Raises:
        UserError: otherwise.
    """
    path = given or own
    if path is not None and path.exists():
        return path
    what = "the run has none" if path is None else f"no folder {path}"
    if path is None and run.setting("data.no_labels"):
        what = "a run without labels"
    elif path is None and run.setting("data.dataset", "custom") != "custom":
        what = f"a run on {run.setting('data.dataset')}, which is no image folder"
    without = f", or do without: --references {HELD_OUT}" if option == "--train" else ""
    raise UserError(
        f"{option}",
        expected="a folder of class folders with labelled images",
        got=what,
        remedy=f"Name one: {option} DIR{without}.",
    )


def references_of(
    task: Task, used: dict[str, Labelled], options: EvaluateOptions
) -> tuple[list[Reference], list[str]]:
    """Return the references, and notes of those that there are not.

    Args:
        task: what is evaluated.
        used: the images that could be embedded, see ``Task.embedded``.
        options: which references are wanted.
    """
    found: list[Reference] = []
    notes: list[str] = []
    n_asked, draws, seed = len(used["val"].targets), options.draws, options.seed
    for name in REFERENCES:
        if name not in options.references:
            continue
        one: Reference | None
        if name != HELD_OUT:
            one = references.of_training(name, used["train"].targets, n_asked, draws, seed)
            missing = f"no reference {name}: it would be all of --train once more"
        elif task.held_out is not None:
            one = references.held_out(used["held_out"].targets, n_asked, draws, seed)
        else:
            one = references.cross_fitted(used["val"].targets, seed)
            missing = (
                f"no reference {name}: --val has a class with one image, or one class; name other "
                "images: --held-out DIR"
            )
        if one is None:
            notes.append(missing)
        else:
            found.append(one)
    return found, notes
