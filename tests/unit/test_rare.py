"""Which images are rare: by the pixels of named classes, by the tail of the counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solo_ood.data.images import Split, one_hot
from solo_ood.data.rare import POSTER_BASE_RATE, define, tail_note
from solo_ood.errors import UserError

CLASSES = ("road", "person", "bicycle", "train")


def masks(n: int, seed: int = 0, empty: float = 0.0, scale: float = 1.0) -> Split:
    """n images of 1 % to ``scale`` pixels of person and of bicycle, none in a share ``empty``."""
    rng = np.random.default_rng(seed)
    shares = np.zeros((n, 4), dtype=np.float32)
    shares[:, 1:3] = scale * rng.uniform(0.01, 0.4, (n, 2)) * (rng.random((n, 2)) >= empty)
    shares[:, 0] = 1 - shares.sum(axis=1)
    paths = tuple(map(Path, map(str, range(n))))
    return Split(paths, shares, CLASSES, masks=paths)


def labelled(labels: list[int]) -> Split:
    return Split(tuple(map(Path, map(str, labels))), one_hot(labels, 4), CLASSES)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(20, 300), rate=st.floats(0.06, 0.94), seed=st.integers(0, 99))
def test_the_share_makes_the_base_rate_of_the_fit_images_rare(n, rate, seed):
    fit = masks(n, seed)
    definition = define("person+bicycle", fit, base_rate=rate)
    rare = definition.is_rare(fit)
    assert abs(rare.mean() - rate) <= 1 / n
    both = fit.shares[:, 1] + fit.shares[:, 2]
    assert both[rare].min() > definition.min_share >= both[~rare].max()


def test_the_default_base_rate_is_the_posters():
    fit = masks(1000)
    assert define("person", fit).is_rare(fit).mean() == pytest.approx(0.1914, abs=0.001)
    assert POSTER_BASE_RATE == 0.1914


def test_a_class_in_fewer_images_than_the_base_rate_is_rare_wherever_it_is():
    fit = masks(200, empty=0.9)
    definition = define("person", fit)
    assert definition.min_share == 0
    np.testing.assert_array_equal(definition.is_rare(fit), fit.shares[:, 1] > 0)


def test_a_given_share_is_taken_as_it_is_and_a_tie_is_not_rare():
    fit = masks(50)
    fit.shares[:3, 1] = (0.25, 0.2501, 0.2499)
    definition = define("person", fit, min_share=0.25, base_rate=0.9)
    assert definition.min_share == definition.test_min_share == 0.25
    np.testing.assert_array_equal(definition.is_rare(fit), fit.shares[:, 1] > 0.25)
    assert definition.is_rare(fit)[:3].tolist() == [False, True, False]


def test_named_classes_count_together_and_once():
    fit = masks(50)
    both = define("person+bicycle", fit, min_share=0.4)
    assert both.class_ids == (1, 2)
    np.testing.assert_array_equal(both.is_rare(fit), fit.shares[:, 1] + fit.shares[:, 2] > 0.4)
    once, twice = (define(name, fit, min_share=0.2) for name in ("person", "person+person"))
    np.testing.assert_array_equal(once.is_rare(fit), twice.is_rare(fit))


def test_the_test_split_is_judged_by_the_share_of_the_fit_split():
    fit, test = masks(300), masks(200, seed=1, scale=0.9)
    definition = define("person", fit, test)
    assert definition.min_share == definition.test_min_share
    np.testing.assert_array_equal(
        definition.is_rare(test, test=True), test.shares[:, 1] > definition.min_share
    )
    assert 0 < definition.is_rare(test, test=True).mean() < 0.1


def test_or_by_a_share_of_its_own():
    fit, test = masks(300), masks(200, seed=1, scale=0.3)
    with pytest.raises(ValueError, match="--rare person, test split: .* got 0% of 200"):
        define("person", fit, test)
    definition = define("person", fit, test, each_split=True)
    assert definition.test_min_share < definition.min_share
    for split, is_test in ((fit, False), (test, True)):
        assert definition.is_rare(split, is_test).mean() == pytest.approx(0.1914, abs=1 / 200)


def test_the_tail_is_the_third_of_the_classes_with_the_fewest_images_to_fit_on():
    fit, test = labelled([0] * 9 + [1] * 2 + [2] * 6 + [3] * 5), labelled([0, 1, 2, 3] * 3)
    definition = define("tail", fit, test)
    assert (definition.name, definition.class_ids) == ("tail", (1,))
    np.testing.assert_array_equal(definition.is_rare(fit), fit.labels == 1)
    np.testing.assert_array_equal(definition.is_rare(test, test=True), test.labels == 1)


def test_images_of_one_label_are_rare_by_their_label_alone():
    fit = labelled([0, 0, 0, 1, 2])
    definition = define("person+bicycle", fit, base_rate=0.01, min_share=0.9999)
    assert definition.is_rare(fit).tolist() == [False, False, False, True, True]


def several(*labels: list[int]) -> Split:
    """Images with several labels each."""
    shares = np.array([one_hot(ids, 4).max(axis=0) for ids in labels])
    return Split(tuple(Path(f"{row}.jpg") for row in range(len(labels))), shares, CLASSES)


def test_an_image_of_several_labels_is_rare_if_one_of_them_is():
    fit = several([0, 2], [0], [0, 1], [0, 3], [1, 3], [0, 3])
    assert define("bicycle", fit).is_rare(fit).tolist() == [True] + 5 * [False]
    assert define("person+bicycle", fit).is_rare(fit).tolist() == [
        True,
        False,
        True,
        False,
        True,
        False,
    ]
    assert fit.caption(0) == "road, bicycle"


def test_the_tail_counts_every_label_of_an_image_and_says_which_classes_it_is():
    # By the first label alone "train" would be in no image and "bicycle" no rarer than "person".
    fit = several([0, 3], [0, 3], [0, 3], [0, 1, 3], [0, 1], [0, 1], [2], [0, 2])
    definition = define("tail", fit)
    assert definition.class_ids == (2,)
    assert tail_note(definition, fit) == "tail = bicycle (2 of 8)"
    assert tail_note(definition, fit, fit).endswith(", 2 of 8 in the test split")


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("c++", (0,)),
        ("c+++c", (0, 2)),  # c++ and c
        ("c+c++", (0, 2)),
        ("c+caf\u00e9", (1, 2)),
        ("cafe\u0301", (1,)),  # as macOS writes it
        (" c + caf\u00e9 ", (1, 2)),
        ("c+x+y", (2, 3)),
    ],
)
def test_a_name_that_holds_a_plus_goes_before_its_parts_and_forms_are_equal(name, ids):
    classes = ("c++", "caf\u00e9", "c", "x+y", "road")
    split = Split(tuple(map(Path, "abcde")), np.eye(5, dtype=np.float32), classes)
    assert sorted(define(name, split).class_ids) == list(ids)


def test_another_case_is_offered_and_not_guessed():
    with pytest.raises(ValueError, match="got 'PERSON'. Did you mean 'person'. Case counts"):
        define("PERSON", masks(20))


def test_the_tail_needs_images_of_one_label():
    with pytest.raises(ValueError, match="--rare tail: expected images of one label each"):
        define("tail", masks(20))


@pytest.mark.parametrize(("name", "near"), [("persn", "'person'"), ("road+bycicle", "'bicycle'")])
def test_an_unknown_class_names_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"Unknown class in --rare: .*Did you mean {near}"):
        define(name, masks(20))


@pytest.mark.parametrize(
    ("name", "share", "rate"), [("train", None, "0%"), ("person", 0.9, "0%"), ("road", 0.0, "100%")]
)
def test_a_definition_that_makes_none_or_all_images_rare_is_an_error(name, share, rate):
    with pytest.raises(ValueError, match=f"--rare {name}, fit split: .* got {rate} of 40 rare"):
        define(name, masks(40), min_share=share)


def test_one_class_alone_has_no_tail():
    with pytest.raises(UserError, match="--rare tail, fit split: .* got 0% of 3 rare. Name") as one:
        define("tail", labelled([2, 2, 2]))
    assert "share" not in str(one.value)  # labels have none
