"""Images as a person sees them: bits, transparency, orientation, files that cannot be read."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from solo_ood.data.order import natural_key
from solo_ood.data.pixels import Unreadable, header, load
from solo_ood.data.survey import cut_note, most_frequent, survey


def saved(path: Path, pixels: np.ndarray, mode: str | None = None, **options) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def ramp(highest: float, dtype: str) -> np.ndarray:
    return np.linspace(0, highest, 12 * 16).reshape(12, 16).astype(dtype)


@pytest.mark.parametrize(
    ("name", "dtype", "mode", "highest", "white"),
    [
        ("16.png", "uint16", None, 60000, 65535),
        ("16.tif", "uint16", None, 60000, 65535),
        ("16B.tif", "uint16", "I;16B", 60000, 65535),
        ("12.png", "uint16", None, 4000, 4095),
        ("10.tif", "uint16", None, 1000, 1023),
        ("8.png", "uint16", None, 250, 255),
        ("32.tif", "int32", None, 2_000_000, 2_000_000),
        ("unit.tif", "float32", None, 1, 1),
        ("bytes.tif", "float32", None, 250, 255),
    ],
)
def test_more_than_8_bits_are_scaled_by_the_bits_that_a_data_set_uses(
    tmp_path, name, dtype, mode, highest, white
):
    pixels = ramp(highest, dtype)
    bright, dark = tmp_path / f"a{name}", tmp_path / f"b{name}"
    if mode == "I;16B":  # which Pillow makes of 32 bits only
        for path, values in ((bright, pixels), (dark, pixels // 4)):
            Image.frombytes("I;16B", (16, 12), values.astype(">u2").tobytes()).save(path)
    else:
        saved(bright, pixels, mode), saved(dark, (pixels / 4).astype(dtype), mode)
    seen = survey([bright], [dark])
    grey = np.asarray(load(bright, seen.levels))
    np.testing.assert_allclose(grey[..., 0], pixels / white * 255, atol=0.51)
    assert (grey == grey[..., :1]).all() and grey.std() > 40  # white by Pillow's `convert`
    ratio = np.asarray(load(dark, seen.levels)).mean() / grey.mean()
    assert ratio == pytest.approx(0.25, abs=0.02)  # one range for all, or they cannot be compared
    (note,) = seen.notes
    assert note.startswith("2 of 2 images have more than 8 bits") and f"{white:g} white" in note


def colours_of_16_bits(path: Path, pixels: np.ndarray) -> Path:
    """Write (12, 16, C) as a PNG, or C = 3 as a TIFF; Pillow writes no such files."""
    height, width, channels = pixels.shape
    if path.suffix == ".tif":
        body = pixels.astype("<u2").tobytes()
        fields = [
            *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 8 + len(body)), (259, 3, 1, 1)),
            *((262, 3, 1, 2), (273, 4, 1, 8), (277, 3, 1, 3), (278, 4, 1, height)),
            *((279, 4, 1, len(body)), (284, 3, 1, 1)),
        ]
        table = b"".join(struct.pack("<HHII", *field) for field in fields)
        start = b"II*\0" + struct.pack("<I", 8 + len(body) + 6)
        bits = struct.pack("<HHH", 16, 16, 16)
        count = struct.pack("<H", len(fields))
        path.write_bytes(start + body + bits + count + table + struct.pack("<I", 0))
        return path
    kind = {2: 4, 3: 2, 4: 6}[channels]

    def chunk(name: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + checksum

    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize("white", [1023, 4095, 65535])
@pytest.mark.parametrize(
    ("name", "channels"), [("a.png", 3), ("a.png", 4), ("a.png", 2), ("a.tif", 3)]
)
def test_colours_of_more_than_8_bits_are_scaled_too(tmp_path, name, channels, white):
    """Of a 12-bit camera Pillow leaves 15 of 255, without a word."""
    pixels = np.stack([ramp(white, "uint16") // (n + 1) for n in range(channels)], axis=-1)
    if channels in (2, 4):
        pixels[..., -1] = 65535
    path = colours_of_16_bits(tmp_path / name, pixels)
    seen = survey([path])
    assert seen.notes[0].startswith("1 of 1 images have more than 8 bits")
    assert f"{white} white" in seen.notes[0]
    shown = np.asarray(load(path, seen.levels)).astype(int)
    expected = pixels[..., [0, 0, 0] if channels == 2 else [0, 1, 2]] / white * 255
    exact = white == 65535 or name == "a.png"  # of a TIFF the upper 8 bits are all there is
    np.testing.assert_allclose(shown, expected, atol=0.51 if exact and name == "a.png" else 65)
    clear = np.concatenate([pixels[..., :3], np.zeros_like(pixels[..., :1])], axis=-1)
    if channels == 3 and name == "a.png":
        assert (np.asarray(load(colours_of_16_bits(path, clear), seen.levels)) == 255).all()


def test_negative_and_missing_values_are_shown_between_the_lowest_and_the_highest(tmp_path):
    pixels = ramp(3000, "float32") - 1000
    pixels[0, :4] = np.nan
    path = saved(tmp_path / "ct.tif", pixels)
    grey = np.asarray(load(path, survey([path]).levels))[..., 0]
    assert grey[0, 0] == 0 and grey[-1, -1] == 255 and 120 < grey.mean() < 135
    signed = saved(tmp_path / "signed.tif", np.nan_to_num(pixels).astype("int32"))
    levels = survey([signed, path]).levels
    assert levels.integer == (-937, 2000) and levels.floating[1] == 2000


def half_clear() -> np.ndarray:
    """(12, 16, 4): the left half black and clear, the right half blue and opaque."""
    pixels = np.zeros((12, 16, 4), dtype=np.uint8)
    pixels[:, 8:] = (0, 0, 200, 255)
    return pixels


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.png", None), ("a.webp", None), ("a.tif", None), ("la.png", "LA"), ("p.png", "P")],
)
def test_what_shows_through_is_white(tmp_path, name, mode):
    image = Image.fromarray(half_clear())
    if mode == "P":
        image = image.quantize()  # a palette with transparency
    path = tmp_path / name
    (image.convert("LA") if mode == "LA" else image).save(path, lossless=True)
    shown = np.asarray(load(path)).astype(int)
    assert shown.shape == (12, 16, 3) and (shown[:, :8] == 255).all() and shown[:, 8:, 0].max() < 99
    assert survey([path]).notes == ["1 of 1 images are transparent: what shows through is white"]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_image_that_is_stored_turned_is_shown_upright(tmp_path, suffix, orientation):
    from solo_ood.data.pixels import upright

    upside = np.full((24, 40, 3), 128, dtype=np.uint8)
    upside[:8, :16] = 255  # the corner at the top on the left is white
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"a.{suffix}"
    upright(Image.fromarray(upside), inverse).save(path, exif=exif)
    shown = np.asarray(load(path)).astype(int)
    assert shown.shape == upside.shape and (header(path).height, header(path).width) == (24, 40)
    assert shown[2:6, 2:12].min() > 220 and shown[-6:, -12:].max() < 160


def test_an_orientation_that_is_none_turns_nothing(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 99
    Image.new("RGB", (40, 24)).save(tmp_path / "a.jpg", exif=exif)
    assert load(tmp_path / "a.jpg").size == (40, 24) and not survey([tmp_path / "a.jpg"]).notes
    found = header(tmp_path / "a.jpg")
    assert (found.height, found.width) == (24, 40)


def test_common_kinds_are_seen_as_before(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    for name, mode in (
        *(("rgb.png", None), ("grey.png", "L"), ("grey.jpg", "L"), ("cmyk.jpg", "CMYK")),
        *(("rgb.jpg", None), ("bits.png", "1"), ("palette.gif", "P")),
    ):
        path = saved(tmp_path / name, pixels, mode)
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(np.asarray(load(path)), expected)
        assert survey([path]).notes == []


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp"])
def test_first_picture_of_a_multi_picture_file_is_used_and_noted(tmp_path, suffix):
    pages = [Image.new("RGB", (16, 12), color) for color in ("red", "blue")]
    path = tmp_path / f"a.{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert np.abs(np.asarray(load(path))[6, 8].astype(int) - (255, 0, 0)).max() < 9
    assert survey([path]).notes[0].startswith("1 of 1 images are of several pictures or pages")


def damaged(folder: Path) -> list[Path]:
    """Files of many kinds that are not whole, one that is a folder, one that is not there."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    paths = [folder / name for name in ("empty.jpg", "text.png", "folder.jpg", "link.jpg")]
    paths[0].touch(), paths[1].write_text("no image"), paths[2].mkdir()
    os.symlink(folder / "gone.jpg", paths[3])
    for suffix in ("jpg", "png", "gif", "tif", "webp", "avif", "bmp"):
        picture.save(folder / f"whole.{suffix}")
        whole = (folder / f"whole.{suffix}").read_bytes()
        for share in (0.02, 0.3, 0.9):
            paths.append(folder / f"cut-{share}.{suffix}")
            paths[-1].write_bytes(whole[: int(share * len(whole))])
    broken = bytearray((folder / "whole.avif").read_bytes())
    for byte in range(0, 280, 3):
        paths.append(folder / f"{byte}.avif")
        paths[-1].write_bytes(broken[:byte] + bytes([broken[byte] ^ 0xFF]) + broken[byte + 1 :])
    Image.new("1", (20000, 20000)).save(folder / "bomb.png")  # decodes to 400 million pixels
    return [*paths, folder / "bomb.png"]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_whatever_is_wrong_with_a_file_is_one_error_that_names_it(tmp_path):
    kinds = set()
    for path in damaged(tmp_path):
        try:
            load(path)
        except Unreadable as error:
            assert str(path) in str(error) and error.reason
            kinds.add(error.reason.partition(":")[0])
        survey([path])  # which passes over it
    assert {"UnidentifiedImageError", "OSError", "IsADirectoryError", "RuntimeError"} <= kinds
    assert {"FileNotFoundError", "DecompressionBombError"} <= kinds


def test_most_images_decide_the_shape_and_what_the_others_lose_is_counted():
    sizes = np.array([(96, 24), *[(48, 64)] * 60, *[(64, 64)] * 14])
    assert most_frequent(sizes) == (48, 64)
    (note,) = cut_note(sizes, (48, 64))
    assert note.startswith("15 of 75 images lose more than 20% of their area") and "81%" in note
    assert cut_note(sizes[1:61], (480, 641)) == []
    assert most_frequent(np.array([(9, 90), (40, 60), (90, 9), (50, 60)])) == (50, 60)  # no winner


def test_numbers_in_names_sort_by_their_value():
    names = [f"frame_{n}.jpg" for n in range(1, 241)]
    assert sorted(reversed(names), key=natural_key) == names
    ordered = ["a/9/01.png", "a/10/2.png", "a/10/002_7.png", "a/10/002_11.png", "a/10/٣.png", "b1"]
    assert sorted(ordered[::-1], key=natural_key) == ordered
    copies = [
        "frame 2.jpg",
        "frame 2 (1).jpg",
        "frame 2 (2).jpg",
        "frame 2 (10).jpg",
        "frame 3.jpg",
    ]
    assert sorted(copies[::-1], key=natural_key) == copies
    assert sorted(["7.png", "x.png", "07.png", ".png", "²"], key=natural_key) == sorted(
        [".png", "07.png", "7.png", "x.png", "²"], key=natural_key
    )


@given(st.lists(st.text(alphabet="a0١19._²é\udce9-", max_size=8)))
def test_any_names_can_be_sorted_and_keep_one_order(names):
    names = [f"a{name}" for name in names]
    assert sorted(names, key=natural_key) == sorted(names[::-1], key=natural_key)
