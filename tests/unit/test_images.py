"""Labelled images in BDD100K's layout, in class folders and in CSV lists; long-tailed subsets."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from solo_ood.data.images import Split, layout_of, long_tailed, one_hot, read_splits
from solo_ood.data.tail import exponential_counts


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (90, 120, 150)).save(path)


def class_folders(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            picture(root / name / f"{name}{number}.jpg")
    return root


def listed(root: Path, lines: str, images: str = "abcd", encoding: str = "utf-8") -> Path:
    for name in images:
        picture(root / "pictures" / f"{name}.jpg")
    (root / "list.csv").write_text(lines, encoding=encoding)
    return root / "list.csv"


@pytest.fixture
def streets(tmp_path) -> Path:
    """BDD100K's layout: 5 + 2 images, the n-th of a split with n rows of 6 of "person"."""
    for split, n in (("train", 5), ("val", 2)):
        for number in range(n):
            picture(tmp_path / "images" / "10k" / split / f"{number}.jpg")
            ids = np.zeros((6, 8), np.uint8)
            ids[:number] = 11
            mask = tmp_path / "labels" / "sem_seg" / "masks" / split / f"{number}_train_id.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ids).save(mask)
    return tmp_path


def test_driving_data_are_fitted_on_train_and_tested_on_val(streets):
    fit, test = read_splits(streets)
    assert (layout_of(streets), len(fit), len(test)) == ("bdd", 5, 2)
    assert fit.by_pixels and fit.left_out == {}
    assert [path.name for path in fit.paths] == [f"{n}.jpg" for n in range(5)]
    assert [path.name for path in fit.masks] == [f"{n}_train_id.png" for n in range(5)]
    person = fit.shares[:, fit.classes.index("person")]
    np.testing.assert_allclose(person, np.arange(5) / 6, rtol=1e-6)
    assert fit.labels.tolist() == [0, 0, 0, 0, 11]  # 3 of 6 rows: a tie goes to the lower id
    assert fit.caption(4) == "person 66.7%, road 33.3%, sidewalk 0.0%"


def test_images_without_a_usable_mask_are_left_out_and_named(streets):
    masks = streets / "labels" / "sem_seg" / "masks" / "train"
    Image.new("RGB", (8, 6)).save(masks / "1_train_id.png")
    (masks / "3_train_id.png").write_bytes(b"no mask")
    (masks / "4_train_id.png").unlink()
    fit, test = read_splits(streets, max_unreadable=0.5)
    assert [path.name for path in fit.paths] == ["0.jpg", "2.jpg"]
    assert [path.name for path in fit.masks] == ["0_train_id.png", "2_train_id.png"]
    assert fit.shares[:, 11].tolist() == pytest.approx([0, 2 / 6])
    assert fit.left_out == {
        "image without a mask": ["4.jpg"],
        "mask of colours, not of one 8-bit channel of ids": ["1_train_id.png"],
        "mask not readable": ["3_train_id.png"],
    }
    assert test.left_out == {}


def test_more_unusable_masks_than_allowed_are_an_error_that_names_one(streets):
    (streets / "labels" / "sem_seg" / "masks" / "train" / "3_train_id.png").write_bytes(b"no mask")
    expected = "masks of train: expected at most 19.0% .* got 1 of 5, the first 3_train_id.png"
    with pytest.raises(ValueError, match=expected):
        read_splits(streets, max_unreadable=0.19)
    assert len(read_splits(streets, max_unreadable=0.2)[0]) == 4


def test_driving_data_without_val_name_the_folder(streets):
    shutil.rmtree(streets / "images" / "10k" / "val")
    with pytest.raises(ValueError, match="expected the folder images/10k/val"):
        read_splits(streets)


@pytest.mark.parametrize("names", [("train", "val"), ("train", "test"), ("fit", "test")])
def test_class_folders_with_a_test_split(tmp_path, names):
    for name, count in zip(names, (3, 1)):
        class_folders(tmp_path / name, {"cat": count, "dog": 1})
    fit, test = read_splits(tmp_path)
    assert fit.classes == test.classes == ("cat", "dog") and not fit.by_pixels
    assert fit.labels.tolist() == [0, 0, 0, 1] and test.labels.tolist() == [0, 1]
    assert (fit.caption(3), len(fit), len(test)) == ("dog", 4, 2)
    np.testing.assert_array_equal(fit.shares.sum(axis=1), 1)


@pytest.mark.parametrize("below", ["", "train"])
def test_class_folders_of_one_split(tmp_path, below):
    class_folders(tmp_path / below, {"cat": 2, "dog": 1})
    fit, test = read_splits(tmp_path)
    assert test is None and fit.classes == ("cat", "dog") and fit.labels.tolist() == [0, 0, 1]


def test_class_folders_that_differ_between_the_splits_are_named(tmp_path):
    class_folders(tmp_path / "train", {"cat": 1, "dog": 1})
    class_folders(tmp_path / "val", {"cat": 1, "fox": 1, "yak": 1})
    with pytest.raises(ValueError, match=r"in train and val, got 2 and 3, .*'dog', 'fox', 'yak'"):
        read_splits(tmp_path)


def test_an_empty_class_folder_is_named(tmp_path):
    class_folders(tmp_path, {"cat": 1, "dog": 0})
    with pytest.raises(ValueError, match="expected a folder with images for every class.* dog"):
        read_splits(tmp_path)


@pytest.mark.parametrize("name", ["missing", "missing.csv", "empty"])
def test_data_of_no_known_layout_are_an_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"data: expected images/10k/ .* got .*{name}, which"):
        read_splits(tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])  # the latter is what Excel writes
def test_a_list_takes_paths_from_its_own_folder_in_its_order(tmp_path, encoding):
    lines = "label,path,note\ndog,pictures/c.jpg,1\ncat,pictures/a.jpg,2\ndog,pictures/b.jpg,3\n"
    fit, test = read_splits(listed(tmp_path, lines, encoding=encoding))
    assert test is None and fit.classes == ("cat", "dog")
    assert [path.name for path in fit.paths] == ["c.jpg", "a.jpg", "b.jpg"]
    assert all(path.is_file() for path in fit.paths) and fit.labels.tolist() == [1, 0, 1]


def test_a_list_may_name_its_splits_and_files_that_are_not_there(tmp_path):
    lines = [f"pictures/{name}.jpg,x{name},{split}" for name, split in zip("abcdz", SPLITS)]
    path = listed(tmp_path, "\n".join(["path,label,split", *lines]))
    with pytest.raises(ValueError, match="at most 1.0% of 3 files to be missing, got 1, .*z.jpg"):
        read_splits(path)
    fit, test = read_splits(path, max_unreadable=0.5)
    assert [path.name for path in fit.paths] == ["a.jpg", "c.jpg"]
    assert [path.name for path in test.paths] == ["b.jpg", "d.jpg"]
    assert fit.classes == test.classes == ("xa", "xb", "xc", "xd", "xz")
    assert fit.left_out == {"no such file": ["z.jpg"]} and test.left_out == {}


SPLITS = ("train", "val", "fit", "test", "train")


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ("", r"list.csv: expected a header .* got 0 rows"),
        ("path,label\n", "list.csv: expected a header .* got 0 rows"),
        ("pictures/a.jpg,cat\npictures/b.jpg,cat\n", "expected a header .* got 1 rows"),
        ("path,label\npictures/a.jpg,cat\n,dog\nb.jpg\n", r"got not all .* line 3 \(and 1 more\)"),
        ("path,label,split\na.jpg,cat,tain\n", r"list.csv, column split: .* got \['tain'\]"),
        ("path,label,split\na.jpg,cat,val\n", "column split: expected train .in at least one row"),
        ("path,label,split\na.jpg,cat,train\nb.jpg,dog\n", "column split: .*None.*train"),
    ],
)
def test_a_list_that_cannot_be_used_is_an_error(tmp_path, lines, error):
    with pytest.raises(ValueError, match=error):
        read_splits(listed(tmp_path, lines))


def test_a_list_in_another_encoding_is_an_error(tmp_path):
    (tmp_path / "list.csv").write_bytes("path,label\ncafé.jpg,cat\n".encode("latin-1"))
    with pytest.raises(ValueError, match="list.csv: expected a CSV in UTF-8"):
        read_splits(tmp_path / "list.csv")


def balanced(classes: int = 10, each: int = 60) -> Split:
    paths = tuple(Path(f"{row}.jpg") for row in range(classes * each))
    labels = np.repeat(np.arange(classes), each)
    return Split(paths, one_hot(labels, classes), tuple("abcdefghijklmnop"[:classes]))


def test_a_long_tail_has_the_profile_of_cifar_lt_in_a_permuted_order_of_classes():
    split, orders = balanced(), []
    for seed in range(3):
        tail, order = long_tailed(split, imbalance=20, seed=seed)
        orders.append(tuple(order))
        counts = [int((tail.labels == split.classes.index(name)).sum()) for name in order]
        assert counts == exponential_counts(60, 10, 20) and sorted(order) == list(split.classes)
        rows = [int(path.stem) for path in tail.paths]
        assert rows == sorted(set(rows)) and tail.classes == split.classes
        np.testing.assert_array_equal(tail.shares, split.shares[rows])
        assert tail.left_out == {}
    assert len(set(orders)) == 3
    again = long_tailed(split, imbalance=20, seed=0)[0]
    assert again.paths == long_tailed(split, imbalance=20, seed=0)[0].paths


def test_a_long_tail_of_a_split_that_lacks_a_class_is_an_error_that_names_it():
    split = balanced(3, 5)
    lacking = split.keep(split.labels != 1)
    with pytest.raises(ValueError, match=r"images of every class, got none of \['b'\]"):
        long_tailed(lacking, imbalance=5, seed=0)


def test_kept_rows_may_be_a_mask_or_indexes_and_the_others_are_named():
    split = balanced(2, 2)
    kept = split.keep(np.array([True, False, True, False]), "broken")
    assert kept.left_out == {"broken": ["1.jpg", "3.jpg"]} and split.left_out == {}
    again = kept.keep(np.array([1]), "broken")
    assert again.paths == (Path("2.jpg"),) and again.labels.tolist() == [1]
    assert again.left_out == {"broken": ["1.jpg", "3.jpg", "0.jpg"]}
    assert kept.left_out == {"broken": ["1.jpg", "3.jpg"]}
