"""Class folders: splits in any spelling, what is skipped, and folders that are no classes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from solo_ood.cli import main
from solo_ood.data.images import layout_of, read_splits
from solo_ood.data.names import look_like_splits, normalise_name, split_of, splits_among
from solo_ood.errors import UserError
from solo_ood.training import preflight

SMALL = ("ood=off", "optimizer.batch_size=1")  # so that a picture is enough


def fill(root: Path, *folders: str, n: int = 2) -> Path:
    """Write n pictures into each folder, all of them different files."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(n):
            Image.new("RGB", (8, 6), (90, 20 * number, 9)).save(root / folder / f"{number}.jpg")
    return root


def classes(root: Path, *splits: str, names: tuple[str, ...] = ("car", "rider")) -> Path:
    return fill(root, *(f"{split}/{name}" for split in splits for name in names))


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


SPLITS = [
    ("train", "valid"),
    ("Train", "Test"),
    ("training", "validation"),
    ("TRAIN", "dev"),
    ("fit", "eval"),
    ("trainset", "testset"),
    ("train_set", "test-set"),
    ("Training Set", "Validation Set"),
    ("train2017", "val2017"),
    ("train_images", "val_images"),
    ("traindata", "testdata"),
    ("seg_train", "seg_test"),
    ("train.v1", "valid.v1"),
    ("train_set_clean", "test_set_clean"),
    ("oursTrain", "oursTest"),
]


@pytest.mark.parametrize(("fit_name", "test_name"), SPLITS)
def test_splits_in_any_spelling_are_no_classes(tmp_path, fit_name, test_name):
    classes(tmp_path, fit_name, test_name)
    fit, test = read_splits(tmp_path)
    assert fit.classes == test.classes == ("car", "rider") and fit.notes == ()
    assert {path.parents[1].name for path in fit.paths} == {fit_name}
    assert {path.parents[1].name for path in test.paths} == {test_name}


@pytest.mark.parametrize(
    "name",
    ["car", "train station", "trainer", "contest", "images", "data", "valley", "développe", "1"],
)
def test_other_names_are_no_splits(name):
    assert split_of(name) is None


def test_of_three_splits_validation_is_tested_on_and_it_says_so(tmp_path):
    classes(tmp_path, "train", "valid", "test")
    fit, test = read_splits(tmp_path)
    assert {path.parents[1].name for path in test.paths} == {"valid"}
    assert fit.notes == ("fitted on train, tested on valid; not used: test",)


def test_a_split_without_class_folders_is_the_last_choice(tmp_path):
    classes(tmp_path, "train", "test")
    fill(tmp_path, "val")
    fit, test = read_splits(tmp_path)
    assert {path.parents[1].name for path in test.paths} == {"test"}
    assert fit.notes == ("fitted on train, tested on test; not used: val",)


def test_splits_below_classes_are_merged_and_noted(tmp_path):
    classes(tmp_path, "car", "rider", names=("train", "val"))
    fit, test = read_splits(tmp_path)
    assert (fit.classes, len(fit), test) == (("car", "rider"), 8, None)
    assert fit.notes == ("read together, whatever their class: train, val",)


def test_a_single_class_folder_names_the_folder_above(tmp_path):
    fill(tmp_path, "car", "rider")
    with pytest.raises(UserError, match=f"Give {tmp_path}, if its folders are the classes"):
        read_splits(tmp_path / "car")


def test_hidden_and_system_files_are_skipped_and_noted(tmp_path):
    fill(tmp_path, "car", "rider", ".ipynb_checkpoints", "__MACOSX/car", "@eaDir", "$RECYCLE.BIN")
    fill(tmp_path, "car/.ipynb_checkpoints", "car/@eaDir")
    (tmp_path / "car" / "._0.jpg").write_bytes(b"of a Mac")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        write(tmp_path / name)
        write(tmp_path / "rider" / name)
    (tmp_path / "car" / "above").symlink_to(tmp_path)
    fit, _ = read_splits(tmp_path)
    assert (fit.classes, len(fit)) == (("car", "rider"), 4)
    said = "\n".join(fit.notes)
    for name in (
        "$RECYCLE.BIN",
        ".ipynb_checkpoints",
        "hidden",
        "car/above: a link to a folder abo",
    ):
        assert name in said


def test_images_of_other_formats_are_noted(tmp_path):
    classes(tmp_path, "train", "val")
    for number, name in enumerate(("a.gif", "b.GIF", "c.avif", "d", "notes.txt")):
        write(tmp_path / ("train/car", "val/rider")[number % 2] / name)
    note = "not read: 2 .gif, 1 .avif, 1 without a suffix (image folders take .jpg, "
    assert [one[: len(note)] for one in read_splits(tmp_path)[0].notes] == [note]
    write(tmp_path / "train/van/a.gif")
    write(tmp_path / "train/van/list.txt")
    with pytest.raises(UserError, match=r"no images in van, but 1 .gif, 1 .txt. Convert them"):
        read_splits(tmp_path)


def test_the_order_is_that_of_an_image_folder(tmp_path):
    fill(tmp_path, "car/2", "car/3", "rider", "car", n=3)
    fit, _ = read_splits(tmp_path)
    assert [str(path) for path in fit.paths] == [path for path, _ in ImageFolder(tmp_path).samples]


def test_images_beside_class_folders_are_noted(tmp_path):
    fill(tmp_path, "", "car", "rider")
    fit, _ = read_splits(tmp_path)
    assert len(fit) == 4 and "no class folder holds them: 0.jpg, 1.jpg" in fit.notes[0]


def test_images_beside_class_folders_of_a_split_are_noted(tmp_path):
    fill(classes(tmp_path, "train", "val"), "train")
    note = "train: not used, as no class folder holds them: 0.jpg, 1.jpg"
    assert read_splits(tmp_path)[0].notes == (note,)


def test_a_folder_above_the_splits_is_read_below_and_says_so(tmp_path):
    classes(tmp_path / "data" / "robo", "Train", "Valid")
    fill(tmp_path, ".cache")
    fit, test = read_splits(tmp_path)
    assert (len(fit), len(test)) == (4, 4)
    assert "read below data/robo, the only folder there is" in fit.notes


@pytest.mark.parametrize(
    ("folders", "error"),
    [
        (["images", "labels"], "images, labels, by name a part of another layout .it looks like"),
        (["Images", "masks"], "Images, masks, by name"),
        (["img", "mask"], "img, mask, by name"),
        (["leftImg8bit", "gtFine"], "it looks like Cityscapes'.* Link .*labelTrainIds"),
        (["leftImg8bit/train/bonn", "leftImg8bit/val/ulm", "gtFine/train/bonn"], "Link the images"),
        (["JPEGImages", "Annotations"], "it looks like Pascal VOC's.* from the lists in Im"),
        (["JPEGImages", "Annotations/x"], "from the lists in ImageSets/Main"),
        (["train/car", "train/rider", "test"], "2 images and no folders in test. Give .*/train, "),
        (["images/car", "annotations"], "classes are the folders in images, give .*images"),
        (["car", "rider", "annotations"], "annotations, by name"),
        (["train/images", "train/labels", "val/images", "val/labels"], "images, labels, by name"),
        (["train/car", "train/rider", "car", "rider"], "train, by name a split, beside car, rider"),
        (["train", "car", "rider"], "train, by name a split, beside car, rider"),
        (["car", "rider", "Test"], "Test, by name a split, beside car, rider"),
        (["val/car", "val/rider", "test/car", "test/rider"], "one to test on, such as val, got"),
        (["train/car", "Train_Set/car", "val/car"], "got Train_Set, train. Rename or move one"),
        (["train", "val"], "a folder for every class, got 2 images and no folders"),
        (["images"], "images, by name a part of another layout"),
        (["train"], "one to test on, such as val, got train"),
        (["car", "rider", "car/Masks"], "got car/Masks, by name the labels of pictures"),
        (["car/img", "car/mask", "rider/img"], "got car/mask, by name"),
        (["cup/ground_truth/a", "cup/test/b", "nut/x"], "got cup/ground_truth, by name"),
    ],
)  # fmt: skip
def test_folders_that_are_no_classes_are_an_error_with_a_remedy(tmp_path, folders, error):
    fill(tmp_path, *folders)
    with pytest.raises(UserError, match=error) as caught:
        read_splits(tmp_path)
    assert "\n" not in str(caught.value) and caught.value.remedy


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["x_train", "x_test", "x_val"], ["x_train", "x_test", "x_val"]),
        (["train_station", "bus"], []),
        (["train_station", "test_tube", "bus"], []),
        (["train_station", "train_track"], []),
        (["train", "val", "bus_train"], ["train", "val", "bus_train"]),
        (["train", "bus"], ["train"]),
        (["train_test", "val_test"], []),
    ],
)
def test_a_word_of_a_name_is_a_split_only_among_splits(names, splits):
    assert list(splits_among(names)) == splits


@pytest.mark.parametrize("names", [("tr", "te"), ("trainA", "trainB"), ("one", "two", "three")])
def test_folders_that_hold_the_same_folders_are_an_error(tmp_path, compose, names):
    classes(tmp_path, *names)
    with pytest.raises(UserError, match=r"the same folders \(car, rider\): are those the classes"):
        read_splits(tmp_path)
    with pytest.raises(UserError, match=r"data.train_path: .*\(car, rider\): are those the cla"):
        preflight.check(compose(f"data.train_path={tmp_path}", *SMALL))
    fill(tmp_path, *names)  # pictures of their own make them classes
    fit = read_splits(tmp_path)[0]
    assert len(fit.classes) == len(names)
    said = [note for note in fit.notes if "if these are splits" in note]
    assert bool(said) == (names != ("one", "two", "three"))
    assert all(note.startswith(f"classes: {', '.join(sorted(names))}; ") for note in said)


@pytest.mark.parametrize(
    ("names", "like"),
    [
        (["trainA", "trainB"], True),
        (["tr", "te"], True),
        (["Train_1", "train_2", "test-a"], True),
        (["trainA", "car"], False),
        (["tram", "taxi"], False),
        (["valley", "trainer"], False),
        (["trainA"], False),
    ],
)
def test_names_that_are_nearly_splits(names, like):
    assert look_like_splits(names) == like


def test_folders_of_a_class_may_have_any_names_but_those_of_labels(tmp_path):
    fill(tmp_path, "car/images", "car/mask", "rider/left/mask")
    write(tmp_path / "rider" / "labels" / "a.txt")  # no pictures
    with pytest.raises(UserError, match="got car/mask, by name"):
        read_splits(tmp_path)
    (tmp_path / "car" / "images").rename(tmp_path / "car" / "red")
    assert len(read_splits(tmp_path)[0]) == 6


def test_masks_may_be_a_class_and_a_train_is_one_in_a_split(tmp_path):
    fill(tmp_path / "faces", "mask", "no_mask")
    assert read_splits(tmp_path / "faces")[0].classes == ("mask", "no_mask")
    classes(tmp_path / "cifar", "train", "test", names=("bus", "train"))
    assert read_splits(tmp_path / "cifar")[1].classes == ("bus", "train")
    assert read_splits(tmp_path / "cifar" / "train")[0].classes == ("bus", "train")


def test_names_in_two_unicode_forms_are_one_class(tmp_path):
    fill(tmp_path, "train/caf\u00e9", "train/car", "val/cafe\u0301", "val/car")
    fit, test = read_splits(tmp_path)
    assert fit.classes == test.classes == ("caf\u00e9", "car")
    for blank in " \u00a0\u200b\ufeff\u200e":
        assert normalise_name(f"{blank}car{blank}") == "car"
    assert normalise_name("a\u200db") == "a\u200db"  # within a name they join letters


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_picture_linked_into_both_splits_is_refused(tmp_path, link):
    classes(tmp_path, "train", "val")
    (tmp_path / "val/car/1.jpg").unlink()
    link(tmp_path / "train/car/0.jpg", tmp_path / "val/car/1.jpg")
    with pytest.raises(UserError, match=r"a leak .*got 1 of 4 test pictures .*too \(1.jpg\)"):
        read_splits(tmp_path)
    assert read_splits(tmp_path, cross_fit=True)[1] is None


def test_a_picture_linked_into_two_classes_has_both_labels(tmp_path):
    fill(tmp_path, "car", "rider")
    (tmp_path / "rider/0.jpg").unlink()
    (tmp_path / "rider/0.jpg").symlink_to(tmp_path / "car/0.jpg")
    fit, _ = read_splits(tmp_path)
    assert fit.shares.tolist() == [[1, 1], [1, 0], [0, 1]]
    assert fit.notes == ("4 files are links to 3 pictures; their labels were joined",)


QUICK = "--embedder resnet18:random --detectors knn --image-size 32 --sizes all --bootstrap 20"


def measure(data: Path, out: Path, *more: str) -> dict:
    common = [*QUICK.split(), "--repeats", "1", "--folds", "2", "--num-workers", "0"]
    main(
        [
            "measure",
            str(data),
            *common,
            "--cache",
            str(out.parent / "cache"),
            "--out",
            str(out),
            *more,
        ]
    )
    return json.loads((out / "table.json").read_text())


def test_a_second_run_does_not_see_the_first_and_both_say_what_the_tail_is(tmp_path, capsys):
    """Output and cache inside the data, the output under a name of the user's."""
    rng = np.random.default_rng(0)
    for name, n in (("car", 12), ("cyclist", 6)):
        (tmp_path / name).mkdir()
        for number in range(n):
            pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    first = measure(tmp_path, tmp_path / "results" / "mine")
    second = measure(tmp_path, tmp_path / "results" / "mine")
    assert first["rows"] == second["rows"] and first["rows"][0]["base_rate"] == 6 / 18
    said = capsys.readouterr().out
    assert said.count("tail = cyclist (6 of 18)") == 4  # before the work and below the table
    assert "results/mine" in "\n".join(second["about"]["notes"])
    with pytest.raises(SystemExit, match="--out: expected a folder of its own"):
        measure(tmp_path, tmp_path / "car")

    rows = [f"car/{n}.png,car" for n in range(12)] + [f"./car/{n}.png,rider" for n in range(3)]
    write(tmp_path / "list.csv", "\n".join(["path,label", *rows]))
    table = measure(tmp_path / "list.csv", tmp_path / "results" / "listed", "--rare", "rider ")
    assert table["rows"][0]["base_rate"] == 3 / 12 and table["rows"][0]["n_test"] == 12
    assert "15 rows name 12 pictures; their labels were joined" in table["about"]["notes"]


@pytest.mark.parametrize(
    ("train", "remedy"),
    [
        (["train/car", "train/rider", "val/car", "val/rider"], "Set data.train_path={}/train."),
        (["s_train/car", "s_test/car"], "Set data.train_path={}/s_train."),
        (["Training/car", "Test/car"], "Set data.train_path={}/Training."),
        (["train/car", "train/rider"], "Set data.train_path={}/train."),
        (["train", "val"], "Set data.train_path={}/train data.no_labels=True."),
        (["robo/train/car", "robo/valid/car"], "Set data.train_path={}/robo/train."),
        (["car", "rider", ".ipynb_checkpoints"], "got .ipynb_checkpoints in {}, hidden"),
        (["car", "car/.ipynb_checkpoints"], "got car/.ipynb_checkpoints in {}, hidden"),
        (["car", "rider", "train"], "got train, by name a split, beside car, rider"),
        (["images", "masks"], "got images, masks, by name a part"),
    ],
)
def test_training_refuses_folders_that_the_host_would_take_for_classes(
    tmp_path, compose, train, remedy
):
    fill(tmp_path / "data", *train)
    with pytest.raises(UserError) as caught:
        preflight.check(compose(f"data.train_path={tmp_path}/data"))
    assert remedy.format(tmp_path / "data") in str(caught.value)
    assert str(caught.value).startswith("data.train_path: ") and "\n" not in str(caught.value)


def test_training_refuses_our_own_output_and_files_that_it_cannot_read(tmp_path, compose):
    fill(tmp_path, "car", "rider", "detect")
    write(tmp_path / "detect" / "report.html")
    with open(write(tmp_path / "detect" / "table.json"), "w") as file:
        file.write("{}")
    with pytest.raises(UserError, match="data.val_path: .* got detect in"):
        preflight.check(compose(f"data.val_path={tmp_path}"))
    fill(tmp_path / "flat", "")
    write(tmp_path / "flat" / ".DS_Store")
    flat = (f"data.train_path={tmp_path}/flat", "++data.no_labels=True", *SMALL)
    with pytest.raises(UserError, match="got .DS_Store in .*flat, hidden"):
        preflight.check(compose(*flat))
    (tmp_path / "flat" / ".DS_Store").unlink()
    for name in ("labels.csv", "clip.MP4"):  # the host would open them in the middle of an epoch
        write(tmp_path / "flat" / name)
        with pytest.raises(UserError, match=f"got {name} in .*flat, hidden or not"):
            preflight.check(compose(*flat))
        (tmp_path / "flat" / name).unlink()
    for name in ("animated.gif", "0"):
        write(tmp_path / "flat" / name)
    preflight.check(compose(*flat))
    (tmp_path / "flat" / "more").mkdir()
    with pytest.raises(UserError, match="got more in .*flat, hidden or not part of the data"):
        preflight.check(compose(*flat))


@pytest.mark.parametrize(
    "folders", [["all"], ["images"], ["car", "rider"], ["train", "bus"], ["frames/a", "frames/b"]]
)
def test_training_takes_class_folders_and_images_in_one_folder(tmp_path, compose, folders):
    fill(tmp_path / "train", *folders)
    preflight.check(compose(f"data.train_path={tmp_path}/train", *SMALL))


def test_only_the_name_of_a_folder_makes_no_output_of_ours(tmp_path):
    fill(tmp_path, "car", "detect")
    assert layout_of(tmp_path) == "folder" and read_splits(tmp_path)[0].classes == ("car", "detect")
