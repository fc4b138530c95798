"""The images that classifiers of an evaluation are fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from solo_ood.evaluation.references import cross_fitted, held_out, of_training

TARGETS = np.repeat([0, 1, 2], [300, 40, 7])


def counts(reference, targets=TARGETS):
    return [np.bincount(targets[fit.known]).tolist() for draw in reference.draws for fit in draw]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("balanced", [7, 7, 7]), ("20-shot", [20, 20, 7]), ("1%", [3, 1, 1])],
)
def test_parts_of_the_training_images(name, expected):
    found = of_training(name, TARGETS, 9, draws=4, seed=0)
    assert counts(found) == [expected] * 4
    assert found.images == sum(expected) and found.per_class == (min(expected), max(expected))
    rows = [fit.known.tolist() for (fit,) in found.draws]
    assert all(len(set(some)) == len(some) for some in rows)
    assert len(set(map(tuple, rows))) == 4  # each draw is another
    assert all(fit.asked.tolist() == list(range(9)) for (fit,) in found.draws)
    again = of_training(name, TARGETS, 9, draws=4, seed=0)
    assert [fit.known.tolist() for (fit,) in again.draws] == rows
    other = of_training(name, TARGETS, 9, draws=4, seed=1)
    assert [fit.known.tolist() for (fit,) in other.draws] != rows


def test_all_training_images_are_one_draw_and_what_repeats_them_is_none():
    assert counts(of_training("train", TARGETS, 9, 4, 0)) == [[300, 40, 7]]
    equal = np.repeat([0, 1], 5)
    for name in ("balanced", "20-shot"):
        assert of_training(name, equal, 9, 4, 0) is None


def test_held_out_images_are_balanced_by_draws_where_they_are_not():
    assert counts(held_out(TARGETS, 9, 3, 0)) == [[7, 7, 7]] * 3
    equal = np.repeat([0, 1], 5)
    whole = held_out(equal, 9, 3, 0)
    assert counts(whole, equal) == [[5, 5]]
    assert whole.text == "held-out: 10 images of --held-out, 5 a class"


def test_by_folds_every_image_is_classified_once_and_never_by_itself():
    targets = np.random.default_rng(0).permutation(np.repeat([0, 1, 3], [30, 11, 16]))
    found = cross_fitted(targets, 0)
    (draw,) = found.draws
    assert len(draw) == 5
    assert sorted(row for fit in draw for row in fit.asked) == list(range(57))
    for fit in draw:
        assert not set(fit.known) & set(fit.asked)
        assert len(set(np.bincount(targets[fit.known])[[0, 1, 3]])) == 1
    assert found.text == "held-out: 27 images of --val, 9 a class, 5 folds"


@pytest.mark.parametrize("targets", [[0, 0, 0], [0, 0, 1]])
def test_by_folds_needs_two_images_of_two_classes(targets):
    assert cross_fitted(np.array(targets), 0) is None
    few = np.array([0, 0, 1, 1, 1])
    (draw,) = cross_fitted(few, 0).draws
    assert len(draw) == 2
