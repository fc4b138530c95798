"""The box of the best region, in pixels of the image as it is shown."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ExifTags, Image
from scipy import ndimage

from solo_ood.data.images import Split
from solo_ood.embedding.extract import Embedded, scale_and_crop
from solo_ood.mining.evidence import best_regions, boxes_of


def box_in(paths, cells, grid, size, shown=None):
    """The boxes of regions of image files."""
    split = Split(tuple(paths), np.zeros((len(paths), 0), np.float32), ())
    patches = np.zeros((len(paths), *grid, 1), np.float16)
    rows = np.arange(len(paths))
    embedded = Embedded(split, patches[:, 0, 0], patches, rows, size, shown)
    return boxes_of(embedded, rows, np.array(cells))


def test_the_best_region_is_the_connected_one_with_the_largest_sum():
    region_map = np.zeros((6, 8))
    region_map[1:3, 1:3] = 0.8  # sum 3.2
    region_map[4:6, 4:8] = 0.6  # sum 4.8
    region_map[0, 7] = 1.0
    region_map[3] = 0.1  # less than half of the highest
    assert best_regions(region_map[None]).tolist() == [[4, 4, 8, 6]]
    assert best_regions(np.zeros((1, 2, 3))).tolist() == [[0, 0, 3, 2]]


def test_regions_of_many_images_are_those_of_each():
    maps = np.random.default_rng(0).random((40, 5, 7)).astype(np.float32) ** 3
    maps[7, :, 2:4] = maps[8, :, 2:4] = 1  # what touches in two images is not one region
    maps[9] = 0
    expected = []
    for one in maps:  # by SciPy, image by image
        labels, count = ndimage.label(one >= one.max() / 2)
        sums = ndimage.sum_labels(one, labels, np.arange(1, count + 1))
        y, x = ndimage.find_objects(labels)[int(np.argmax(sums))]
        expected.append([x.start, y.start, x.stop, y.stop])
    assert best_regions(maps).tolist() == expected


@pytest.mark.parametrize("shape", [(64, 64), (64, 128), (128, 64), (96, 160), (33, 50)])
@pytest.mark.parametrize("turned", [False, True])
def test_a_box_lies_where_the_network_saw_it(tmp_path, shape, turned):
    """A white square is found by its cells, whatever the shape that was cut to the middle."""
    height, width = shape
    pixels = np.zeros((height, width), dtype=np.uint8)
    y, x = int(height * 0.4), int(width * 0.45)
    pixels[y : y + height // 5, x : x + width // 5] = 255
    shown = Image.fromarray(pixels)
    size, grid = (64, 64), (16, 16)
    seen = np.asarray(scale_and_crop(shown, size, Image.Resampling.BOX))
    cells = best_regions(seen.reshape(1, 16, 4, 16, 4).mean((2, 4)))
    exif = Image.Exif()
    if turned:
        exif[ExifTags.Base.Orientation] = 6
        shown = shown.rotate(90, expand=True)
    shown.save(tmp_path / "a.png", exif=exif)
    (box,) = box_in([tmp_path / "a.png"], cells, grid, size)
    cell = max(1, min(height, width) / 16)
    expected = (x, y, x + width // 5, y + height // 5)
    np.testing.assert_allclose(box, expected, atol=cell + 1)


def test_a_box_never_leaves_its_image(tmp_path):
    Image.new("L", (50, 33)).save(tmp_path / "a.png")
    (tmp_path / "b.png").touch()
    cells = [(0, 0, 16, 16), (0, 0, 1, 1)]
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    box, none = box_in(paths, cells, (16, 16), (64, 64))
    assert 0 <= box[0] < box[2] <= 50 and (box[1], box[3]) == (0, 33)
    assert none is None
    (tmp_path / "a.png").unlink()  # its size was written down when it was embedded
    assert box_in(paths[:1], cells[:1], (16, 16), (64, 64), np.array([[33, 50]])) == [box]
