"""``solo-ood evaluate``: k-NN and a linear probe on a run's frozen networks, from either host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from solo_ood.console import counting_bar
from solo_ood.data.labels import file_key
from solo_ood.embedding.devices import check_devices, is_first_process
from solo_ood.embedding.embedder import Embedder
from solo_ood.embedding.extract import embed
from solo_ood.embedding.networks import make_embedder
from solo_ood.errors import UserError
from solo_ood.evaluation import data, figures
from solo_ood.evaluation.data import Labelled
from solo_ood.evaluation.figures import Figure
from solo_ood.evaluation.groups import grouped_accuracy
from solo_ood.evaluation.options import WEIGHTS, EvaluateOptions
from solo_ood.evaluation.probes import CS, knn_predictions, linear_probe
from solo_ood.files.checkpoint import load, state_dict_of
from solo_ood.files.output import check_writable
from solo_ood.host.run_folder import RunFiles, find_run
from solo_ood.options.field import check


@dataclass(frozen=True)
class _Task:
    """What the networks are evaluated on; ``notes`` say what the user should know."""

    train: Labelled
    val: Labelled
    tail: Labelled | None
    groups: dict[str, list[int]]
    notes: list[str]


def evaluate(options: EvaluateOptions, show: Callable[[str], None] = print) -> list[Figure]:
    """Evaluate a run and write ``evaluation.json``, ``.csv`` and ``.md``.

    Figures that are there of other settings, data or checkpoints stay.

    Everything that can be checked is checked before anything is embedded.

    Returns:
        the figures; ``[]`` on all processes but the first.

    Raises:
        UserError: for a run, data or options that do not fit each other.
    """
    check(options)
    run = find_run(options.run)
    check_writable(options.out or run.folder, "--out", *figures.FILES)
    check_devices(options.embedding)
    task = _task(run, options)
    roles = _roles(run, options)
    checkpoint = run.checkpoint_facts()
    embedders = {}
    size = options.embedding.image_size or run.crop_size
    for role in roles:
        spec = f"{run.checkpoint}:{role}" if role else str(run.checkpoint)
        embedders[role or "student"] = make_embedder(
            spec, "pooled", image_size=(size, size), to_choose="--weights {}"
        )
    for name, labelled in (("train", task.train), ("val", task.val), ("tail", task.tail)):
        show(f"{name:<6}{data.describe_data(labelled.facts()) if labelled else 'none: no groups'}")
    for note in task.notes:
        show(f"note: {note}")
    about = {**checkpoint, "image_size": size}
    if task.notes:
        about["notes"] = "; ".join(task.notes)
    found: list[Figure] = []
    for role, embedder in embedders.items():
        train, val = (
            _embedded(labelled, embedder, options, size) for labelled in (task.train, task.val)
        )
        if is_first_process():
            found += _figures(role, train, val, task, options, about, show)
    if not found:
        return []
    facts = {
        "command": options.command,
        "run": str(run.folder.resolve()),
        "notes": task.notes,
        "weights": {role: embedder.note for role, embedder in embedders.items()},
    }
    written = figures.write(found, options.out or run.folder, facts)
    show("\n".join(["", figures.terminal(found), f"written: {written[0]}, .csv, .md"]))
    return found


def _task(run: RunFiles, options: EvaluateOptions) -> _Task:
    """Read and check the data: the run's own where none are named."""
    own_train = run.image_folder("train_path")
    train = data.read(_named(options.train, run.reference_folder, "--train", run), "train")
    val_path = _named(options.val, run.image_folder("val_path"), "--val", run)
    val = data.read(val_path, "val", train.split.classes)
    if len(np.unique(train.targets)) < 2:
        raise UserError(
            f"--train {train.path}",
            expected="images of at least 2 classes",
            got="one class",
            remedy="Give the folder that holds the class folders.",
        )
    notes, tail, groups = [], None, {}
    if set(map(file_key, train.split.paths)) & set(map(file_key, val.split.paths)):
        notes.append("--train and --val share images: the figures are too good")
    if options.tail is not None:
        tail = data.read(options.tail, "tail", train.split.classes)
        groups = data.groups_by(tail, train)
    elif own_train is not None and not run.setting("data.no_labels"):
        try:
            tail = data.read(own_train, "tail", train.split.classes)
            groups = data.groups_by(tail, train)
        except UserError as error:  # another data set, which is fine, or one that is gone
            tail, groups = None, {}
            notes.append(f"no Many, Medium and Few by the run's training folder ({error.got})")
    return _Task(train, val, tail, groups, notes)


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
    raise UserError(
        f"{option}",
        expected="a folder of class folders with labelled images",
        got=what,
        remedy=f"Name one: {option} DIR.",
    )


def _roles(run: RunFiles, options: EvaluateOptions) -> list[str]:
    """Return which networks of the checkpoint to evaluate; "" is one without a role."""
    if options.weights:
        return list(dict.fromkeys(options.weights))
    content = load(run.checkpoint, mmap=True)
    state = state_dict_of(run.checkpoint, content) if "state_dict" in content else {}
    has_teacher = any(key.startswith(("momentum_backbone.", "momentum_encoder.")) for key in state)
    return list(WEIGHTS) if has_teacher else [""]


def _embedded(
    given: Labelled, embedder: Embedder, options: EvaluateOptions, size: int
) -> tuple[np.ndarray, Labelled]:
    """Return the features (N, D) and the images that they are of, without unreadable ones."""
    cfg = replace(options.embedding, as_host=True)
    root = given.path if given.path.is_dir() else given.path.parent
    found = embed(given.split, embedder, cfg, root, given.path.name, (size, size))
    return found.pooled, given.keep(found.split)


def _facts(given: Labelled, used: Labelled) -> dict[str, Any]:
    """Return what the data are, and how many of the images could not be used, if any."""
    left_out = len(given.targets) - len(used.targets)
    return given.facts() | ({"left_out": left_out} if left_out else {})


def _figures(
    weights: str,
    train: tuple[np.ndarray, Labelled],
    val: tuple[np.ndarray, Labelled],
    task: _Task,
    options: EvaluateOptions,
    about: dict[str, Any],
    show: Callable[[str], None],
) -> Iterator[Figure]:
    """Yield the figures of one network."""
    (known, reference), (unknown, asked) = train, val
    about = {
        **about,
        "train": _facts(task.train, reference),
        "val": _facts(task.val, asked),
        "tail": task.tail.facts() if task.tail else None,
    }

    def figure(method: str, predictions: np.ndarray, settings: dict[str, Any]) -> Figure:
        accuracy = grouped_accuracy(
            torch.from_numpy(predictions), torch.from_numpy(asked.targets), task.groups
        )
        return Figure(method, weights, accuracy, {**about, **settings})

    if "knn" in options.methods:
        for k in options.k:
            for temperature in options.temperature:
                found = knn_predictions(known, reference.targets, unknown, k, temperature)
                yield figure("knn", found, {"k": k, "temperature": temperature})
    if "linear" in options.methods:
        with counting_bar(len(CS) + 1, f"linear probe, {weights}", "fit") as bar:
            probe = linear_probe(
                known, reference.targets, unknown, options.seed, tell=lambda: bar.update()
            )
        if not probe.converged:
            show(f"note: the linear probe of the {weights} did not converge")
        settings = {"C": probe.c, "converged": probe.converged}
        yield figure("linear", probe.predictions, settings)
