"""The box of the best region, in pixels of the image as it is shown."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ExifTags, Image

from solo_ood.embedding.extract import scale_and_crop
from solo_ood.mining.evidence import best_region, box_in_image


def test_the_best_region_is_the_connected_one_with_the_largest_sum():
    region_map = np.zeros((6, 8))
    region_map[1:3, 1:3] = 0.8  # sum 3.2
    region_map[4:6, 4:8] = 0.6  # sum 4.8
    region_map[0, 7] = 1.0
    region_map[3] = 0.1  # less than half of the highest
    assert best_region(region_map) == (4, 4, 8, 6)
    assert best_region(np.zeros((2, 3))) == (0, 0, 3, 2)


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
    cells = best_region(seen.reshape(16, 4, 16, 4).mean((1, 3)))
    exif = Image.Exif()
    if turned:
        exif[ExifTags.Base.Orientation] = 6
        shown = shown.rotate(90, expand=True)
    shown.save(tmp_path / "a.png", exif=exif)
    box = box_in_image(np.array(cells), grid, size, tmp_path / "a.png")
    cell = max(1, min(height, width) / 16)
    expected = (x, y, x + width // 5, y + height // 5)
    np.testing.assert_allclose(box, expected, atol=cell + 1)


def test_a_box_never_leaves_its_image(tmp_path):
    Image.new("L", (50, 33)).save(tmp_path / "a.png")
    box = box_in_image(np.array((0, 0, 16, 16)), (16, 16), (64, 64), tmp_path / "a.png")
    assert 0 <= box[0] < box[2] <= 50 and (box[1], box[3]) == (0, 33)
    (tmp_path / "b.png").touch()
    assert box_in_image(np.array((0, 0, 1, 1)), (16, 16), (64, 64), tmp_path / "b.png") is None
