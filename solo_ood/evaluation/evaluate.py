"""``solo-ood evaluate``: k-NN and a linear probe on a run's frozen networks, from either host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from solo_ood.console import counting_bar
from solo_ood.embedding.devices import check_devices, is_first_process
from solo_ood.embedding.embedder import Embedder
from solo_ood.embedding.extract import embed
from solo_ood.embedding.networks import make_embedder
from solo_ood.errors import UserError
from solo_ood.evaluation import data, tables
from solo_ood.evaluation.accuracy import Accuracies, accuracies
from solo_ood.evaluation.classify import classified, methods_of, steps_of
from solo_ood.evaluation.data import Labelled
from solo_ood.evaluation.figures import DATA, Figure
from solo_ood.evaluation.options import REFERENCES, WEIGHTS, EvaluateOptions
from solo_ood.evaluation.references import Reference
from solo_ood.evaluation.task import Task, read_task, references_of
from solo_ood.files.checkpoint import load, state_dict_of
from solo_ood.files.output import check_writable
from solo_ood.files.text import printable
from solo_ood.host.run_folder import RunFiles, find_run
from solo_ood.options.field import check

Embeddings = dict[str, tuple[np.ndarray, Labelled]]  # features (N, D), by ``Task.embedded``


def evaluate(options: EvaluateOptions, show: Callable[[str], None] = print) -> list[Figure]:
    """Evaluate a run and write ``evaluation.json``, ``.csv``, ``.md`` and ``.png``.

    Figures that are there of other settings, data or checkpoints stay.

    Everything that can be checked is checked before anything is embedded.

    Returns:
        the figures; ``[]`` on all processes but the first.

    Raises:
        UserError: for a run, data or options that do not fit each other.
    """
    check(options)
    run = find_run(options.run)
    out = options.out or run.folder
    check_writable(out, "--out", *tables.FILES)
    check_devices(options.embedding)
    task = read_task(run, options)
    size = options.embedding.image_size or run.crop_size
    about = {**run.checkpoint_facts(), "image_size": size}
    embedders = _embedders(run, options, size)
    references, notes = references_of(task, task.embedded, options)
    task.notes.extend(notes)
    if not references:
        raise UserError(
            "--references",
            expected="one that the data have",
            got="; ".join(notes),
            remedy="Name other data, or other references.",
        )
    _show_data(task, show)
    found: list[Figure] = []
    for role, embedder in embedders.items():
        embeddings = {
            name: _embedded(given, embedder, options, size) for name, given in task.embedded.items()
        }
        if is_first_process():
            found += _figures(role, embeddings, task, options, about, show)
    if not found:
        return []
    found.sort(key=lambda figure: REFERENCES.index(figure.reference))  # stable: teacher first
    facts = {
        "command": options.command,
        "run": str(run.folder.resolve()),
        "notes": task.notes,
        "weights": {role: embedder.note for role, embedder in embedders.items()},
    }
    written = tables.write(found, out, facts)
    show("\n".join(["", tables.terminal(found), "", *(f"written: {path}" for path in written)]))
    return found


def _embedders(run: RunFiles, options: EvaluateOptions, size: int) -> dict[str, Embedder]:
    """Return the networks of the checkpoint by what they are called."""
    found = {}
    for role in _roles(run, options):
        spec = f"{run.checkpoint}:{role}" if role else str(run.checkpoint)
        found[role or "student"] = make_embedder(
            spec, "pooled", image_size=(size, size), to_choose="--weights {}"
        )
    return found


def _roles(run: RunFiles, options: EvaluateOptions) -> list[str]:
    """Return which networks of the checkpoint to evaluate; "" is one without a role."""
    if options.weights:
        return list(dict.fromkeys(options.weights))
    content = load(run.checkpoint, mmap=True)
    state = state_dict_of(run.checkpoint, content) if "state_dict" in content else {}
    has_teacher = any(key.startswith(("momentum_backbone.", "momentum_encoder.")) for key in state)
    return list(WEIGHTS) if has_teacher else [""]


def _show_data(task: Task, show: Callable[[str], None]) -> None:
    for name in DATA:
        given: Labelled | None = getattr(task, name)
        text = data.describe_data(given.facts()) if given else "none"
        if name == "held_out" and given is None:
            text = "val, by folds"
        elif name == "tail" and not task.groups:
            text = "none: no groups"
        show(printable(f"{name.replace('_', '-'):<9} {text}"))
    for note in task.notes:
        show(printable(f"note: {note}"))


def _embedded(
    given: Labelled, embedder: Embedder, options: EvaluateOptions, size: int
) -> tuple[np.ndarray, Labelled]:
    """Return the features (N, D) and the images that they are of, without unreadable ones."""
    cfg = replace(options.embedding, as_host=True)
    root = given.path if given.path.is_dir() else given.path.parent
    found = embed(given.split, embedder, cfg, root, given.path.name, (size, size))
    return found.pooled, given.keep(found.split)


def _facts(given: Labelled | None, used: Labelled | None) -> dict[str, Any] | None:
    """Return what the data are, and how many of the images could not be used, if any."""
    if given is None:
        return None
    left_out = 0 if used is None else len(given.targets) - len(used.targets)
    return given.facts() | ({"left_out": left_out} if left_out else {})


def _figures(
    weights: str,
    embeddings: Embeddings,
    task: Task,
    options: EvaluateOptions,
    about: dict[str, Any],
    show: Callable[[str], None],
) -> Iterator[Figure]:
    """Yield the figures of one network."""
    used = {name: labelled for name, (_, labelled) in embeddings.items()}
    about = about | {name: _facts(getattr(task, name), used.get(name)) for name in DATA}
    if task.notes:
        about["notes"] = "; ".join(task.notes)
    asked, targets = embeddings["val"][0], used["val"].targets
    references, _ = references_of(task, used, options)
    methods = methods_of(options.methods, options.k, options.temperature, options.seed)
    rare = task.groups.get("Few", [])
    steps = steps_of(methods, references)
    with counting_bar(steps, f"classifiers on the {weights}", "fit") as bar:
        for reference in references:
            feats, labelled = embeddings[reference.source]
            known = feats, labelled.targets
            for result in classified(reference, known, asked, methods, rare, bar.update):
                if result.settings.get("converged") is False:
                    show(f"note: a linear probe did not converge ({weights}, {reference.name})")
                found = accuracies(
                    result.predictions, result.rare_scores, targets, task.groups, options.seed
                )
                facts = {**about, **_reference_facts(reference), **result.settings}
                yield _figure(result.method, weights, reference, found, task, used["val"], facts)


def _reference_facts(reference: Reference) -> dict[str, Any]:
    return {
        "reference": reference.text,
        "reference_images": reference.images,
        "draws": len(reference.draws),
        "folds": len(reference.draws[0]),
    }


def _figure(
    method: str,
    weights: str,
    reference: Reference,
    found: Accuracies,
    task: Task,
    val: Labelled,
    about: dict[str, Any],
) -> Figure:
    counts, images = task.images_of, np.bincount(val.targets, minlength=len(task.classes))
    rows: Sequence[dict[str, Any]] = [
        {
            "class": task.classes[label],
            "train_images": None if counts is None else int(counts[label]),
            "val_images": int(images[label]),
            "accuracy": accuracy.value,
            "low": accuracy.low,
            "high": accuracy.high,
        }
        for label, accuracy in found.classes.items()
    ]
    intervals = {name: (one.low, one.high) for name, one in found.groups.items()}
    auroc = found.auroc
    if auroc is not None:
        intervals[tables.AUROC] = (auroc.low, auroc.high)
    return Figure(
        method,
        weights,
        {name: one.value for name, one in found.groups.items()},
        about,
        reference.name,
        None if auroc is None else auroc.value,
        intervals,
        rows,
    )
