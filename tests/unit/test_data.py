"""Long-tail profiles, class groups, labels, the embedded digits, grouped accuracy."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import Subset

from solo_ood.data.digits import IMBALANCE, SIDE, SPLITS, digits_lt
from solo_ood.data.tail import exponential_counts
from solo_ood.errors import UserError
from solo_ood.evaluation.groups import format_groups, grouped_accuracy, groups_of
from solo_ood.selection.classes import class_groups, rare_classes, targets_of


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOLO_OOD_CACHE", str(tmp_path_factory.mktemp("digits")))
        return {split: Path(digits_lt(split)) for split in SPLITS}


def names(folder: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in folder.glob("*/*.png")}


def counts(folder: Path) -> list[int]:
    return [len(list((folder / str(digit)).iterdir())) for digit in range(10)]


def test_the_profile_of_cifar_10_lt_100():
    expected = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]  # published, rounded down
    assert exponential_counts(5000, 10, 100) == pytest.approx(expected, abs=1)


@settings(max_examples=50, deadline=None)
@given(largest=st.integers(1, 10**5), classes=st.integers(2, 200), imbalance=st.floats(1, 10**4))
def test_a_profile_falls_from_the_largest_and_leaves_no_class_empty(largest, classes, imbalance):
    profile = exponential_counts(largest, classes, imbalance)
    assert len(profile) == classes and profile[0] == largest
    assert profile == sorted(profile, reverse=True)
    assert profile[-1] == max(1, round(largest / imbalance))


@pytest.mark.parametrize(("classes", "imbalance"), [(1, 10), (10, 0.5), (10, float("nan"))])
def test_a_profile_needs_classes_and_an_imbalance(classes, imbalance):
    with pytest.raises(UserError, match=f"got {classes} and {imbalance}"):
        exponential_counts(100, classes, imbalance)


def test_of_10_classes_many_gets_4_and_the_rarest_3_are_few():
    targets = np.repeat(np.arange(10), [9, 1, 8, 2, 7, 3, 6, 4, 5, 10])
    expected = {"Many": [9, 0, 2, 4], "Medium": [6, 8, 7], "Few": [5, 3, 1]}
    assert class_groups(targets) == expected
    assert rare_classes(targets) == [5, 3, 1]


@pytest.mark.parametrize(
    ("targets", "sizes"), [([0], (1, 0, 0)), ([0, 0, 1], (1, 0, 1)), ([0, 1, 2], (1, 1, 1))]
)
def test_few_classes_leave_groups_empty_but_lose_none(targets, sizes):
    assert tuple(map(len, class_groups(targets).values())) == sizes


def test_unlabelled_samples_are_no_class():
    assert class_groups([-1, -1, -1, 4, 4, 7]) == {"Many": [4], "Medium": [], "Few": [7]}


def test_labels_are_those_of_the_samples_left_by_data_fraction():
    dataset = SimpleNamespace(samples=[("a.png", 2), ("b.png", 0)], targets=[2, 0, 1, 1])
    assert targets_of(dataset).tolist() == [2, 0]
    assert targets_of(SimpleNamespace(targets=[1, 1, 0])).tolist() == [1, 1, 0]


@pytest.mark.parametrize("attributes", [{}, {"targets": []}, {"samples": [("a.png", -1)] * 3}])
def test_a_dataset_without_labels_has_none(attributes):
    assert targets_of(SimpleNamespace(**attributes)) is None


class Raising:
    """A dataset whose labels are read late, and are not there."""

    @property
    def targets(self):
        raise OSError("no such file")


class Four(Raising):
    """A dataset of four samples."""

    targets = None

    def __init__(self, targets):
        self.targets = targets

    def __len__(self):
        return 4


def of(targets, **attributes):
    return SimpleNamespace(targets=targets, **attributes)


@pytest.mark.parametrize(
    ("dataset", "got"),
    [
        (of(["a.png", "b.png"]), "'a.png' among 2"),
        (of([{"boxes": 3}, {}]), "{'boxes': 3} among 2"),
        (of({"a": 0, "b": 1}), "'a' among 2"),
        (of({0: 1, 1: 0}), "{0: 1, 1: 0} among 2"),
        (of([None, None]), "None among 2"),
        (of([1, None, 0]), "None among 3"),
        (of([0.5, 1.5]), "0.5 among 2"),
        (of(b"ab"), "b'ab' among 2"),
        (of([torch.tensor([1]), torch.tensor([0])]), r"tensor\(\[1\]\) among 2"),
        (of(np.array([2**63 + 1], np.uint64)), "9223372036854775809, which is too large"),
        (of([2**70]), "OverflowError"),
        (Four([0, 1, 2]), "3 for 4 samples"),
        (of([0, 1], target_transform=str), "'0' among 2"),
        (of(np.eye(3, dtype=int)), "array"),  # one-hot
        (of([[1], [2, 3]]), "ValueError"),
        (of([1, "cat"]), "'cat' among 2"),
        (of(len), "TypeError"),  # a method
        (SimpleNamespace(samples=[("a", 0, "x"), ("b", 1, "y")]), "ValueError"),
        (SimpleNamespace(samples=[("a", "cat"), ("b", "dog")]), "'cat' among 2"),
        (Raising(), "OSError: no such file"),
    ],
)
def test_labels_that_are_not_one_integer_count_as_unlabelled_with_a_warning(dataset, got):
    with pytest.warns(RuntimeWarning, match=f"expected one integer a sample, got .*{got}"):
        assert targets_of(dataset) is None


def test_targets_count_where_samples_have_no_label():
    assert targets_of(of([1, 0], samples=["a.png", "b.png"])).tolist() == [1, 0]
    assert targets_of(of([True, False])).tolist() == [1, 0]


@pytest.mark.parametrize(
    "targets",
    [
        range(3),
        [np.int64(i) for i in range(3)],
        [torch.tensor(i) for i in range(3)],
        np.arange(3, dtype=object),
        torch.arange(3, dtype=torch.uint8),
    ],
)
def test_integers_of_any_kind_are_labels(targets):
    assert targets_of(of(targets)).tolist() == [0, 1, 2]


def test_labels_are_those_that_batches_have():
    """Of classes that are joined, or numbered anew, which is rare depends on it."""
    joined = of([0, 1, 2, 3, 3], target_transform=lambda label: min(label, 2))
    assert targets_of(joined).tolist() == [0, 1, 2, 2, 2]
    assert targets_of(Subset(joined, [4, 0])).tolist() == [2, 0]


def test_train_is_long_tailed_with_the_stated_imbalance(splits):
    train = counts(splits["train"])
    assert train == sorted(train, reverse=True)
    assert train[0] / train[9] == pytest.approx(IMBALANCE, rel=0.05)


def test_reference_and_val_are_balanced(splits):
    assert len({*counts(splits["reference"])}) == 1 == len({*counts(splits["val"])})
    assert counts(splits["val"])[0] == 36


def test_train_is_part_of_reference_and_val_is_disjoint_from_both(splits):
    train, reference, val = (names(splits[split]) for split in SPLITS)
    assert train < reference
    assert not val & reference


def test_the_images_are_the_real_digits_of_their_folder(splits):
    digits = load_digits()
    for path in sorted(splits["val"].glob("*/*.png"))[::60]:
        index = int(path.stem)
        assert digits.target[index] == int(path.parent.name)
        image = Image.open(path)
        assert image.size == (SIDE, SIDE) and image.mode == "RGB"
        small = np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BOX))
        assert np.corrcoef(small.ravel(), digits.images[index].ravel())[0, 1] > 0.95


def test_the_digits_are_written_once_and_the_same_everywhere(splits, tmp_path, monkeypatch):
    monkeypatch.setenv("SOLO_OOD_CACHE", str(tmp_path))
    train = Path(digits_lt())
    assert train.is_relative_to(tmp_path) and names(train) == names(splits["train"])
    mark = train / "mark"
    mark.touch()
    assert Path(digits_lt("train")) == train and mark.exists()
    assert len(list(tmp_path.iterdir())) == 1  # nothing half-written stays


def test_an_unknown_split_is_an_error():
    with pytest.raises(ValueError, match="digits split: expected one of .*, got test"):
        digits_lt("test")


def test_groups_follow_the_counts_of_the_training_folder(splits):
    expected = {"Many": [0, 1, 2, 3], "Medium": [4, 5, 6], "Few": [7, 8, 9]}
    assert groups_of(str(splits["train"])) == expected
    assert groups_of(None) == {}


def test_a_folder_that_the_host_cannot_read_is_one_error_that_says_why(tmp_path):
    (tmp_path / "empty" / "car").mkdir(parents=True)
    (tmp_path / "file").touch()
    for name, why in (("empty", "Found no valid file for the classes car"), ("gone", "No such"),
                      ("file", "Not a directory")):  # fmt: skip
        with pytest.raises(UserError, match=f"expected a folder of class folders .*{why}"):
            groups_of(str(tmp_path / name))


def test_accuracy_is_in_percent_of_all_and_of_each_group_that_has_samples():
    predictions, targets = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 0, 2])
    groups = {"Many": [0, 1], "Medium": [3], "Few": [2]}
    result = grouped_accuracy(predictions, targets, groups)
    assert result == pytest.approx({"All": 75.0, "Many": 200 / 3, "Few": 100.0})
    assert format_groups(result) == "All 75.0  Many 66.7  Few 100.0"
