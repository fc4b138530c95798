"""A long-tailed training set and a balanced reference, cut out of a balanced ImageFolder."""

from __future__ import annotations

import pytest
from PIL import Image

from solo_ood.data.longtail import longtail
from solo_ood.errors import UserError


@pytest.fixture(scope="module")
def balanced(tmp_path_factory):
    folder = tmp_path_factory.mktemp("balanced")
    for label in ("ant", "bee", "cat", "dog"):
        (folder / label).mkdir()
        for i in range(30):
            Image.new("L", (4, 4), i).save(folder / label / f"{i:02d}.png")
    return folder


def counts(folder):
    return {entry.name: len(list(entry.iterdir())) for entry in folder.iterdir()}


def images(folder):
    return {path.resolve() for path in folder.glob("*/*")}


def test_train_is_long_tailed_and_shares_no_image_with_the_balanced_reference(balanced, tmp_path):
    order = longtail(balanced, tmp_path / "out", imbalance=8, seed=3, reference=6)
    assert [counts(tmp_path / "out" / "train")[name] for name in order] == [24, 12, 6, 3]
    assert counts(tmp_path / "out" / "reference") == dict.fromkeys(order, 6)
    train, reference = images(tmp_path / "out" / "train"), images(tmp_path / "out" / "reference")
    assert not train & reference and train | reference <= images(balanced)
    assert sorted(order) == ["ant", "bee", "cat", "dog"]


def test_a_seed_draws_the_order_of_the_classes_and_the_images(balanced, tmp_path):
    drawn = {}
    for name, seed in (("a", 0), ("again", 0), ("b", 1), ("c", 2)):
        order = longtail(balanced, tmp_path / name, imbalance=5, seed=seed)
        drawn[name] = order, images(tmp_path / name / "train")
    assert drawn["a"] == drawn["again"]
    assert len({tuple(order) for order, _ in drawn.values()}) > 1
    assert drawn["a"][1] != drawn["b"][1] != drawn["c"][1]


@pytest.mark.parametrize(
    "settings", [{"reference": 30}, {"reference": 10, "largest": 21}, {"imbalance": 0.5}]
)
def test_impossible_requests_are_refused_and_leave_nothing(settings, balanced, tmp_path):
    with pytest.raises(UserError, match="expected"):
        longtail(balanced, tmp_path / "out", **{"imbalance": 2, "seed": 0, **settings})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_never_written_into(balanced, tmp_path):
    with pytest.raises(UserError, match="does not exist yet"):
        longtail(balanced, tmp_path, imbalance=2, seed=0)
    assert not list(tmp_path.iterdir())
