"""Where in an exemplar what matters is: masks and boxes on the grid of the patches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from solo_ood.benchmark.lookup import boxes_in
from solo_ood.data.bdd import VOID
from solo_ood.data.images import read_splits
from solo_ood.data.rare import RareDefinition
from solo_ood.detection.regions import Regions

PERSON = RareDefinition("person", (11,), 0.1, 0.1)
BOTH = RareDefinition("person+bicycle", (11, 18), 0.1, 0.1)
HEIGHT, WIDTH = 48, 64


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """BDD100K's layout; a person left above and a bicycle right below in some of the images."""
    for split in ("train", "val"):
        images = tmp_path / "images" / "10k" / split
        masks = tmp_path / "labels" / "sem_seg" / "masks" / split
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for number in range(3):
            ids = np.zeros((HEIGHT, WIDTH), np.uint8)
            if number:
                ids[:12, : 8 * number] = 11
                ids[-6:, -16:] = 18
            Image.fromarray(ids).save(masks / f"{number}.png")
            Image.new("RGB", (WIDTH, HEIGHT)).save(images / f"{number}.jpg")
    return tmp_path


def test_a_patch_counts_by_the_share_of_its_pixels_that_matter(streets):
    split = read_splits(streets)[0]
    regions = Regions(split, (HEIGHT, WIDTH), (4, 4))  # patches of 12 x 16 pixels
    found = regions.patch_shares(BOTH, np.array([2, 1, 0]))
    expected = np.zeros((3, 4, 4))
    expected[0, 0, 0], expected[1, 0, 0] = 1, 0.5
    expected[:2, 3, 3] = 0.5
    assert found.shape == (3, 16, 2) and found.dtype == np.float32
    np.testing.assert_allclose(found[..., 0], expected.reshape(3, 16), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=2), 1, atol=1e-6)
    person = regions.patch_shares(PERSON, [2])[..., 0]
    assert person[0, 0] == 1 and person.sum() == 1  # without the bicycle


def test_void_pixels_are_neither_what_matters_nor_what_does_not(streets):
    split = read_splits(streets)[0]
    with Image.open(split.masks[2]) as mask:
        ids = np.array(mask)
    ids[:, 32:48] = VOID
    ids[:6, :16] = VOID
    Image.fromarray(ids).save(split.masks[2])
    found = Regions(split, (HEIGHT, WIDTH), (4, 4)).patch_shares(PERSON, [2])[0].reshape(4, 4, 2)
    np.testing.assert_allclose(found[:, 2], 0)
    np.testing.assert_allclose(found[0, 0], (0.5, 0), atol=1e-6)
    np.testing.assert_allclose(found[1:, :2], np.broadcast_to((0, 1), (3, 2, 2)))


def test_shares_are_those_of_all_pixels_at_any_scale(streets):
    split = read_splits(streets)[0]
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[:24, 1::2] = 11  # stripes of one pixel, of which 2.67 become one
    Image.fromarray(ids).save(split.masks[1])
    (found,) = Regions(split, (18, 24), (2, 2)).patch_shares(PERSON, [1])
    np.testing.assert_allclose(found[:, 0], (0.5, 0.5, 0, 0), atol=0.01)


def test_a_mask_of_another_shape_than_its_image_is_an_error_that_names_it(streets):
    split = read_splits(streets)[0]
    half = Image.new("L", (WIDTH // 2, HEIGHT // 2), 11)  # a smaller one of the same shape is fine
    half.save(split.masks[1])
    assert (Regions(split, (HEIGHT, WIDTH), (1, 1)).patch_shares(PERSON, [1]) == [1, 0]).all()
    Image.new("L", (HEIGHT, HEIGHT)).save(split.masks[1])
    with pytest.raises(ValueError, match="mask of 1.jpg: .* 48 x 64 pixels .* got 48 x 48"):
        Regions(split, (HEIGHT, WIDTH), (1, 1)).patch_shares(PERSON, [1])


def test_masks_are_scaled_and_cut_like_the_images(streets):
    split = read_splits(streets)[0]
    # Doubled to 96 x 128, then 96 x 96 of the middle: 16 pixels less on the left and the right.
    found = Regions(split, (96, 96), (4, 6)).patch_shares(BOTH, [2])[0, :, 0].reshape(4, 6)
    expected = np.zeros((4, 6))
    expected[0, 0] = 1  # 32 pixels wide, 16 are cut off
    expected[3, 5] = 0.5
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_boxes_are_the_same_as_masks_of_their_pixels(streets):
    (streets / "boxes.csv").write_text(
        "path,left,top,right,bottom,note\ntrain/2.jpg,0,0,16,12,a\n2.jpg,48,42,64,48,b\n"
        "1.jpg,0,0,8,12,c\n1.jpg,48,42,64,48,d\n"
    )
    split = read_splits(streets)[0]
    boxes = boxes_in(split, streets / "boxes.csv")
    assert {path.name: len(found) for path, found in boxes.items()} == {"2.jpg": 2, "1.jpg": 2}
    for size, grid in (((HEIGHT, WIDTH), (4, 4)), ((96, 96), (4, 6)), ((30, 40), (3, 5))):
        by_mask, by_box = Regions(split, size, grid), Regions(split, size, grid, boxes)
        np.testing.assert_array_equal(
            by_box.patch_shares(PERSON, [1, 2]), by_mask.patch_shares(BOTH, [1, 2])
        )


def test_a_box_holds_every_pixel_that_it_touches(streets):
    split = read_splits(streets)[0]
    (streets / "boxes.csv").write_text("path,left,top,right,bottom\n1.jpg,2.2,7.9,2.9,8.1\n")
    regions = Regions(split, (HEIGHT, WIDTH), (HEIGHT, WIDTH))
    boxed = replace(regions, boxes=boxes_in(split, streets / "boxes.csv")).patch_shares(PERSON, [1])
    marked = np.argwhere(boxed[0, :, 0].reshape(HEIGHT, WIDTH)).tolist()
    assert marked == [[7, 2], [8, 2]]


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ("path,left,top,right\n1.jpg,0,0,8\n", "boxes.csv: expected a header .* bottom"),
        ("path,left,top,right,bottom\n1.jpg,0,0,8,\n", "boxes.csv: expected .* in every row"),
        ("path,left,top,right,bottom\n9.jpg,0,0,8,8\n", "boxes.csv, line 2, '9.jpg': expected the"),
        ("path,left,top,right,bottom\n1.jpg,8,0,8,8\n", "line 2: .* got left 8, top 0, right 8"),
        ("path,left,top,right,bottom\n1.jpg,0,9,8,8\n", "line 2: expected 0 <= left"),
        ("path,left,top,right,bottom\n1.jpg,-1,0,8,8\n", "line 2: .* in pixels of 1.jpg"),
        ("path,left,top,right,bottom\n1.jpg,0,0,65,8\n", "left < right <= 64 and .* <= 48"),
        ("path,left,top,right,bottom\n1.jpg,0,0,8,49\n", "line 2: expected 0 <= left"),
        ("path,left,top,right,bottom\n1.jpg,0,0,8,8\n1.jpg,a,0,8,8\n", "line 3: .* got left a"),
    ],
)
def test_boxes_that_cannot_be_used_are_an_error_that_names_the_line(streets, lines, error):
    (streets / "boxes.csv").write_text(lines)
    with pytest.raises(ValueError, match=error):
        boxes_in(read_splits(streets)[0], streets / "boxes.csv")


def test_a_list_of_boxes_that_is_not_there_is_an_error(streets):
    with pytest.raises(ValueError, match="none.csv: expected a CSV, got .*No such file"):
        boxes_in(read_splits(streets)[0], streets / "none.csv")


@pytest.mark.parametrize("drawn_on", ["shown", "stored"])
def test_boxes_and_masks_of_an_image_that_is_stored_turned_lie_where_it_shows_them(
    streets, drawn_on
):
    split = read_splits(streets)[0]
    path, mask = split.paths[1], split.masks[1]
    (streets / "boxes.csv").write_text(f"path,left,top,right,bottom\n1.jpg,0,40,8,{WIDTH}\n")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # shown turned to the right: WIDTH high, HEIGHT wide
    Image.new("RGB", (WIDTH, HEIGHT)).save(path, exif=exif)
    ids = np.zeros((WIDTH, HEIGHT), np.uint8)
    ids[40:, :8] = 11
    shown = Image.fromarray(ids)
    (shown if drawn_on == "shown" else shown.rotate(90, expand=True)).save(mask)
    size = (WIDTH, HEIGHT)
    by_mask = Regions(split, size, size).patch_shares(PERSON, [1])
    boxes = boxes_in(split, streets / "boxes.csv")
    np.testing.assert_array_equal(
        Regions(split, size, size, boxes).patch_shares(PERSON, [1]), by_mask
    )
    np.testing.assert_array_equal(by_mask[0, :, 0].reshape(size), ids == 11)


def test_a_box_on_an_image_that_cannot_be_read_is_an_error(streets):
    split = read_splits(streets)[0]
    (streets / "boxes.csv").write_text("path,left,top,right,bottom\n1.jpg,0,0,8,8\n")
    split.paths[1].write_bytes(b"no image")
    with pytest.raises(ValueError, match="line 2: expected an image, got UnidentifiedImageError"):
        boxes_in(split, streets / "boxes.csv")


def test_outlines_are_those_of_what_is_connected_the_largest_first(streets):
    split = read_splits(streets)[0]
    with Image.open(split.masks[2]) as mask:
        ids = np.array(mask)
    ids[30, 2] = 11  # a speck beside 192 pixels is told, one of a thousandth would not be
    Image.fromarray(ids).save(split.masks[2])
    regions = Regions(split, (HEIGHT, WIDTH), (4, 4))
    assert regions.outlines(BOTH, 2) == [
        (0, 0, 25, 25),
        (75, 87.5, 25, 12.5),
        (round(200 / 64, 2), 62.5, round(100 / 64, 2), round(100 / 48, 2)),
    ]
    assert regions.outlines(PERSON, 1) == [(0, 0, 12.5, 25)]
    assert regions.outlines(BOTH, 2, most=1) == [(0, 0, 25, 25)]
    assert regions.outlines(BOTH, 0) == []
