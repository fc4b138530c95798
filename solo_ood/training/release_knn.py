"""k-NN evaluation on solo-learn 1.0.2, by the host's own classifier."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from solo.utils.knn import WeightedKNNClassifier
from torch import Tensor
from torch.utils.data import DataLoader

from solo_ood.evaluation.groups import group_masks, groups_of
from solo_ood.files.output import check_writable
from solo_ood.host import release
from solo_ood.host.backbones import read_trained
from solo_ood.host.run_folder import find_run
from solo_ood.training.linear_config import run_setting
from solo_ood.training.preflight.data import check_labelled_folder
from solo_ood.training.release_programs import (
    load_network,
    outputs_of,
    subject,
    write_json,
)


def knn(
    checkpoint: Path,
    train_path: str | Path | None = None,
    val_path: str | Path | None = None,
    weights: str = "student",
    k: int = 20,
    temperature: float = 0.07,
    distance: str = "cosine",
    tail_path: str | Path | None = None,
    batch_size: int = 64,
    num_workers: int = 1,
) -> dict[str, float]:
    """Classify with the host's ``WeightedKNNClassifier``; return accuracies in percent.

    They go to the run's ``knn.json``, with the data that they are of.

    Args as in the host's ``main_knn.py``, with the run's own data as defaults, and:

        tail_path: ImageFolder whose class counts define Many, Medium and Few; ``None`` = the run's
            training folder, where its data are evaluated.
    """
    run = find_run(checkpoint)
    check_writable(run.folder, "the run's folder", "knn.json")
    if tail_path is None and train_path is None:
        tail_path = run_setting(checkpoint, "tail_path")
    train_path = str(train_path or run_setting(checkpoint, "train_path"))
    val_path = str(val_path or run_setting(checkpoint, "val_path"))
    tail_path = None if tail_path is None else str(tail_path)
    for option, path in (("train", train_path), ("val", val_path), ("tail", tail_path)):
        if path is not None:
            check_labelled_folder(path, f"--{option}_data_path")
    network, crop_size = load_network(run.checkpoint, weights, "--weights {}")
    network.eval()
    groups = groups_of(tail_path, train_path)
    normalise = read_trained(run.checkpoint).normalisation
    loaders = release.eval_loaders(
        train_path, val_path, crop_size, batch_size, num_workers, normalise
    )
    train = outputs_of(network, _unshuffled(loaders[0]))
    feats, targets = outputs_of(network, loaders[1])
    if distance == "cosine":  # the metric takes the dot product of what it is given
        train, feats = (F.normalize(train[0]), train[1]), F.normalize(feats)
    classifier = partial(WeightedKNNClassifier, k=k, T=temperature, distance_fx=distance)
    result = _accuracies(classifier, train, (feats, targets), groups)
    about = subject(run, weights, *loaders, tail_path)
    about |= {"k": k, "temperature": temperature, "distance": distance}
    write_json(run.folder / "knn.json", {**result, "about": about})
    return result


def _accuracies(
    make_classifier: Callable[[], WeightedKNNClassifier],
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    groups: dict[str, list[int]],
) -> dict[str, float]:
    """Return the accuracy in percent over all of ``test``, and over each group of classes.

    Args:
        make_classifier: a new one, which has seen nothing.
        train: features (N, D) and targets (N,).
        test: the same.
        groups: what ``groups_of`` gave.
    """
    feats, targets = test

    def accuracy(rows: Tensor) -> float:
        classifier = make_classifier()
        classifier.update(train_features=train[0], train_targets=train[1])
        classifier.update(test_features=feats[rows], test_targets=targets[rows])
        return float(classifier.compute()[0])

    everything = torch.arange(len(targets))
    result = {"All": accuracy(everything)}
    for name, mask in group_masks(targets, groups).items():
        # The metric gives one number, for a test set that must hold every class: counting a
        # group's samples a second time, the difference is the group's own accuracy.
        group = everything[mask]
        twice = accuracy(torch.cat((everything, group)))
        total = len(everything) + len(group)
        result[name] = (twice * total - result["All"] * len(everything)) / len(group)
    return result


def _unshuffled(loader: DataLoader) -> DataLoader:
    """Return the loader in order and without dropping a last batch: k-NN wants every sample."""
    return DataLoader(loader.dataset, batch_size=loader.batch_size, num_workers=loader.num_workers)
