"""Accuracies with intervals, against a bootstrap that is written out and scikit-learn's AUROC."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from solo_ood.evaluation.accuracy import accuracies

GROUPS = {"Many": [0], "Medium": [1], "Few": [2]}


@pytest.fixture(scope="module")
def draws():
    rng = np.random.default_rng(0)
    targets = rng.permutation(np.repeat([0, 1, 2], [60, 50, 40]))
    right = rng.random((3, 150)) < np.array([0.9, 0.7, 0.5])[targets]
    predictions = np.where(right, targets, (targets + 1) % 3)
    scores = np.round((targets == 2) + rng.normal(size=(3, 150)), 1)  # with ties
    return predictions, scores, targets


def resampled(predictions, scores, targets, samples=400):
    """One draw and images drawn anew within their class, one bootstrap sample after the other."""
    rng = np.random.default_rng(1)
    members = [np.flatnonzero(targets == label) for label in range(3)]
    rare = targets == 2
    found = []
    for _ in range(samples):
        draw = rng.integers(len(predictions))
        rows = np.concatenate([rng.choice(few, len(few)) for few in members])
        right = predictions[draw, rows] == targets[rows]
        groups = [100 * right[targets[rows] == label].mean() for label in range(3)]
        both = [rng.choice(np.flatnonzero(kind), kind.sum()) for kind in (rare, ~rare)]
        auroc = roc_auc_score(rare[np.concatenate(both)], scores[draw, np.concatenate(both)])
        found.append([100 * right.mean(), *groups, np.std(groups), auroc])
    return np.percentile(found, (2.5, 97.5), axis=0).T


def test_values_are_means_over_the_draws(draws):
    predictions, scores, targets = draws
    found = accuracies(predictions, scores, targets, GROUPS)
    right = 100 * (predictions == targets)
    assert list(found.groups) == ["All", "Many", "Medium", "Few", "Std"]
    assert found.groups["All"].value == pytest.approx(right.mean())
    each = np.array([[row[targets == label].mean() for label in range(3)] for row in right])
    for label, name in enumerate(GROUPS):
        assert found.groups[name].value == pytest.approx(each[:, label].mean())
        assert found.classes[label].value == pytest.approx(each[:, label].mean())
    assert found.groups["Std"].value == pytest.approx(np.std(each, axis=1).mean())
    expected = np.mean([roc_auc_score(targets == 2, row) for row in scores])
    assert found.auroc.value == pytest.approx(expected)


def test_intervals_are_those_of_the_bootstrap_that_is_written_out(draws):
    found = accuracies(*draws, GROUPS)
    ours = [interval[1:] for interval in found.groups.values()] + [found.auroc[1:]]
    expected = resampled(*draws)
    widths = expected[:, 1] - expected[:, 0]
    assert (np.abs(np.array(ours) - expected) < 0.15 * widths[:, None]).all()
    assert found.classes[2][1:] == pytest.approx(found.groups["Few"][1:])


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    targets = np.repeat([0, 1], 100)
    covered = 0
    for seed in range(200):
        right = rng.random((1, 200)) < 0.8
        found = accuracies(np.where(right, targets, 5), np.zeros((1, 200)), targets, {}, seed)
        covered += found.groups["All"].low <= 80 <= found.groups["All"].high
    assert 0.9 < covered / 200 < 0.99


def test_without_groups_there_is_the_whole_only():
    targets = np.array([0, 0, 1, 1])
    found = accuracies(targets[None], np.zeros((1, 4)), targets, {})
    assert found.groups == {"All": (100, 100, 100)} and found.auroc is None
    two = accuracies(targets[None], np.zeros((1, 4)), targets, {"Many": [0], "Few": [1, 7]})
    assert list(two.groups) == ["All", "Many", "Few"] and two.auroc.value == 0.5


def test_many_images_and_classes_take_little_time():
    rng = np.random.default_rng(0)
    targets = rng.integers(1000, size=10_000)
    groups = {"Many": range(400), "Medium": range(400, 700), "Few": range(700, 1000)}
    started = time.process_time()
    accuracies(rng.integers(1000, size=(5, 10_000)), rng.random((5, 10_000)), targets, groups)
    assert time.process_time() - started < 10
