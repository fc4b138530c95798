"""BDD100K's layout: pairs of images and masks, pixel shares, masks that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from solo_ood.data.bdd import (
    CLASSES,
    COLOURED,
    LABEL_IDS,
    LAYOUTS,
    VOID,
    locate,
    pair_images_and_masks,
    pixel_shares,
)
from solo_ood.data.images import layout_of, read_splits
from solo_ood.errors import UserError

IDS = st.sampled_from([*range(len(CLASSES)), VOID])


def folders(root: Path, split: str = "train") -> tuple[Path, Path]:
    made = root / "images" / "10k" / split, root / "labels" / "sem_seg" / "masks" / split
    for folder in made:
        folder.mkdir(parents=True)
    return made


def fill(root: Path, images: list[str], masks: list[str]) -> None:
    """Write files without content: pairing looks at names only."""
    for folder, names in zip(folders(root), (images, masks)):
        for name in names:
            (folder / name).touch()


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, len(CLASSES), (24, 32), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def problem(mask: Path) -> str | None:
    shares, bad = pixel_shares([mask], "masks")
    assert bool(bad) == (shares.sum() == 0)  # what cannot be used has a row of zeros
    return bad.get(str(mask))


def test_the_classes_are_the_19_train_ids_of_cityscapes():
    assert len(CLASSES) == len(set(CLASSES)) == 19
    ids = {name: CLASSES.index(name) for name in ("road", "sky", "person", "rider", "bicycle")}
    assert ids == {"road": 0, "sky": 10, "person": 11, "rider": 12, "bicycle": 18}


def test_images_are_paired_with_masks_of_the_same_name_in_order(tmp_path):
    fill(
        tmp_path,
        ["c.png", "a.jpg", "b.jpeg", "d.JPG", "note.txt"],
        ["b.png", "a_train_id.png", "c.png", "d.png", "note.json"],
    )
    images, masks, left_out = pair_images_and_masks(tmp_path, "train")
    assert [path.name for path in images] == ["a.jpg", "b.jpeg", "c.png", "d.JPG"]
    assert [path.name for path in masks] == ["a_train_id.png", "b.png", "c.png", "d.png"]
    assert left_out == {}


def test_files_without_partner_are_left_out_by_name(tmp_path):
    fill(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], ["b.png", "d.png", "e_train_id.png"])
    images, masks, left_out = pair_images_and_masks(tmp_path, "train")
    assert ([p.name for p in images], [p.name for p in masks]) == (["b.jpg"], ["b.png"])
    assert left_out == {
        "image without a mask": ["a.jpg", "c.jpg"],
        "mask without an image": ["d.png", "e_train_id.png"],
    }


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_folder_is_named(tmp_path, missing):
    folders(tmp_path)[missing].rmdir()
    name = ("images/10k/train", "labels/sem_seg/masks/train")[missing]
    with pytest.raises(ValueError, match=f"BDD100K's layout: expected the folder {name}"):
        pair_images_and_masks(tmp_path, "train")


def test_colour_masks_are_recognised_by_name(tmp_path):
    fill(tmp_path, ["a.jpg", "b.jpg"], ["a_train_color.png", "b_train_color.png"])
    with pytest.raises(ValueError, match="none of them a pair. Give the masks of train ids"):
        pair_images_and_masks(tmp_path, "train")


@pytest.mark.parametrize(("images", "masks"), [(["a.jpg"], ["b.png"]), ([], ["b.png"]), ([], [])])
def test_a_split_without_any_pair_is_an_error_that_counts(tmp_path, images, masks):
    fill(tmp_path, images, masks)
    expected = f"split train: .* {len(images)} images and {len(masks)} masks, none of them a pair"
    with pytest.raises(ValueError, match=expected):
        pair_images_and_masks(tmp_path, "train")


def made(root: Path, images: str, masks: str, name: str = "{}.png", folder: str = "") -> Path:
    """A layout of two splits with two images each."""
    for split in ("train", "val"):
        for number in range(2):
            for path in (Path(images, split, f"{number}.jpg"), Path(masks, split, name)):
                file = root / folder / str(path).format(number)
                file.parent.mkdir(parents=True, exist_ok=True)
                save(file, np.full((4, 4), number, np.uint8))
    return root


@pytest.mark.parametrize(
    ("images", "masks", "below"),
    [
        ("seg/images", "seg/labels", ""),
        ("seg/images", "seg/labels", "seg"),
        ("images/100k", "labels/sem_seg/masks", ""),
    ],
)
@pytest.mark.parametrize("name", ["{}_train_id.png", "{}.PNG"])
def test_older_layouts_and_suffixes_in_capitals_are_read(tmp_path, images, masks, below, name):
    made(tmp_path, images, masks, name)
    assert layout_of(tmp_path / below) == "bdd"
    found, paired, left_out = pair_images_and_masks(tmp_path / below, "val")
    assert [path.name for path in found] == ["0.jpg", "1.jpg"] and left_out == {}
    assert [path.parent for path in paired] == [tmp_path / masks / "val"] * 2


@pytest.mark.parametrize("folder", ["bdd100k", "data/bdd100k"])
@pytest.mark.parametrize("layout", [("images/10k", "labels/sem_seg/masks"), LAYOUTS[1]])
def test_a_folder_above_the_layout_is_read_below_and_says_so(tmp_path, folder, layout):
    made(tmp_path, *layout, folder=folder)
    (tmp_path / "__MACOSX").mkdir()
    assert layout_of(tmp_path) == "bdd"
    fit, test = read_splits(tmp_path)
    assert (len(fit), len(test), fit.notes) == (2, 2, (f"read below {folder}",))


@pytest.mark.parametrize(
    "part", ["images", "images/10k", "images/10k/train", "labels", "labels/sem_seg"]
)
def test_a_part_of_the_layout_names_the_folder_to_give(tmp_path, part):
    made(tmp_path, *LAYOUTS[0])
    with pytest.raises(UserError, match=f"a part of it. Give {tmp_path}"):
        read_splits(tmp_path / part)


def test_masks_of_other_data_sets_are_not_taken_for_train_ids(tmp_path):
    made(tmp_path, "images", "labels")
    with pytest.raises(UserError, match="images, labels, by name a part of another layout"):
        read_splits(tmp_path)


def test_two_data_sets_in_a_folder_are_not_chosen_from(tmp_path):
    for name in ("a", "b"):
        made(tmp_path, *LAYOUTS[0], folder=name)
    with pytest.raises(UserError, match="which holds a, b. Give one of them"):
        locate(tmp_path)


def test_colours_beside_no_ids_are_named(tmp_path):
    made(tmp_path, "seg/images", "seg/color_labels")
    with pytest.raises(UserError, match="expected the folder seg/labels/train, .*but color_labels"):
        read_splits(tmp_path)


def test_label_ids_and_colours_are_an_error_that_says_what_to_give(tmp_path):
    made(tmp_path, *LAYOUTS[0])
    mask = tmp_path / "labels/sem_seg/masks/train/1.png"
    save(mask, np.full((4, 4), 26, np.uint8))  # a car by its label id
    expected = "these look like label ids, not train ids. Give the masks of train ids"
    with pytest.raises(UserError, match=expected):
        read_splits(tmp_path, max_unreadable=0.9)  # the other masks would be misread
    save(mask, np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="1.png: of colours.* Give the masks of train ids"):
        read_splits(tmp_path)


def test_hidden_files_beside_images_and_masks_are_none_of_them(tmp_path):
    made(tmp_path, *LAYOUTS[0])
    for folder, suffix in (("images/10k", "jpg"), ("labels/sem_seg/masks", "png")):
        (tmp_path / folder / "train" / f"._0.{suffix}").write_bytes(b"of a Mac")
    assert (
        len(pair_images_and_masks(tmp_path, "train")[0]) == 2
        and pair_images_and_masks(tmp_path, "train")[2] == {}
    )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=IDS))
def test_shares_are_the_pixels_of_a_class_by_all_pixels(tmp_path, pixels):
    shares, bad = pixel_shares([save(tmp_path / "mask.png", pixels)], "masks")
    expected = [(pixels == c).sum() / pixels.size for c in range(len(CLASSES))]
    np.testing.assert_allclose(shares[0], expected, rtol=1e-6)
    assert shares[0].sum() == pytest.approx((pixels != VOID).mean()) and bad == {}


def test_rows_stay_with_their_masks_though_threads_decode_them(tmp_path):
    masks = [save(tmp_path / f"{c}.png", np.full((8, 8), c, np.uint8)) for c in range(19)]
    masks.insert(7, tmp_path / "missing.png")
    shares, bad = pixel_shares(masks, "masks")
    assert bad == {str(masks[7]): "not readable"} and not shares[7].any()
    np.testing.assert_array_equal(np.delete(shares, 7, axis=0), np.eye(19))


@pytest.mark.parametrize("foreign", [19, 33, 100, 254])
def test_a_single_pixel_of_a_foreign_id_is_noticed(tmp_path, foreign):
    pixels = noise()
    pixels[3, 4] = foreign
    said = problem(save(tmp_path / "m.png", pixels))
    assert said == ("with ids outside 0-18 and 255" if foreign > 33 else LABEL_IDS)
    pixels[3, 4] = VOID
    assert problem(save(tmp_path / "m.png", pixels)) is None


@pytest.mark.parametrize(
    "convert",
    [
        lambda pixels: np.stack([pixels] * 3, axis=2),  # a colour map
        lambda pixels: pixels.astype(np.uint16),
        lambda pixels: pixels > 9,
    ],
    ids=["RGB", "16 bit", "1 bit"],
)
def test_a_mask_of_another_kind_is_noticed(tmp_path, convert: Callable):
    mask = convert(noise())
    said = problem(save(tmp_path / "m.png", mask))
    assert said == (COLOURED if mask.ndim == 3 else "not of one 8-bit channel")


def test_a_palette_mask_is_read_by_its_ids(tmp_path):
    image = Image.fromarray(np.full((4, 4), 11, np.uint8), mode="P")
    image.putpalette([255 - n for n in range(19 * 3)])
    image.save(tmp_path / "m.png")
    shares, _ = pixel_shares([tmp_path / "m.png"], "masks")
    assert shares[0, 11] == 1


@pytest.mark.parametrize("share", [0, 0.01, 0.2, 0.5, 0.9])
def test_a_truncated_mask_is_noticed(tmp_path, share):
    path = save(tmp_path / "m.png", noise())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert problem(path) == "not readable"


def test_a_broken_mask_never_stops_the_others(tmp_path):
    whole = save(tmp_path / "whole.png", noise()).read_bytes()
    rng = np.random.default_rng(0)
    masks = []
    for number in range(150):
        broken = bytearray(whole)
        broken[rng.integers(len(broken))] ^= int(rng.integers(1, 256))
        masks.append(tmp_path / f"{number}.png")
        masks[-1].write_bytes(broken)
    shares, bad = pixel_shares(masks, "masks")
    assert len(bad) > 75 and not shares[[str(mask) in bad for mask in masks]].any()
