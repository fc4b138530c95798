"""Read an image file as a person sees it, with one exception for every fault of a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from solo_ood.data.videos import frame_of, probe
from solo_ood.errors import UserError

# What a viewer does for each orientation of EXIF.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unreadable(UserError):
    """A file that cannot be read as an image, with its path and the reason."""

    def __init__(self, path: Path | str, error: Exception) -> None:
        self.reason = " ".join(f"{type(error).__name__}: {error}".split())
        super().__init__(
            str(path),
            expected="an image that can be read",
            got=self.reason,
            remedy="Repair or remove the file.",
        )


@dataclass(frozen=True)
class Levels:
    """What is black and what is white in the images of a data set that have more than 8 bits."""

    integer: tuple[float, float] = (0.0, 65535.0)
    floating: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Header:
    """What an image is, without its pixels.

    Attributes:
        height: as it is shown, in pixels.
        width: the same.
        deep: whether its channels have more than 8 bits.
        orientation: of EXIF, from 1, stored upright, to 8.
        transparent: whether it may show what is behind it.
        several: whether the file holds more pictures than the first.
    """

    height: int
    width: int
    deep: bool
    orientation: int
    transparent: bool
    several: bool


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn every error of a decoder into ``Unreadable``.

    Pillow's decoders raise more than they document: ``RuntimeError``, ``struct.error``,
    ``EOFError``, ``OverflowError``. Too little memory is not the file's fault.
    """
    try:
        yield
    except (MemoryError, Unreadable):
        raise
    except Exception as error:
        raise Unreadable(path, error) from error


def load(path: Path | str, levels: Levels | None = None) -> Image.Image:
    """Return the first picture of a file, or a frame of a video, in RGB and upright.

    What shows through is white, as on a page; more than 8 bits are scaled by ``levels`` (``None`` =
    all that 16 bits hold), where Pillow cuts all above 255 to white.

    Raises:
        Unreadable: if the file cannot be read.
    """
    frame = frame_of(path)
    if frame is not None:
        from solo_ood.data.video_frames import read_frame

        with reading(path):
            return read_frame(*frame)
    with reading(path), Image.open(path) as image:
        deep = _is_deep(image)  # before loading, which forgets it
        image.load()
        orientation = _orientation(image)  # after loading, which turns a TIFF
        shown: Image.Image = image
        if deep:
            shown = _scaled(_all_bits(image, path), levels or Levels())
        if _is_transparent(shown):
            seen = shown.convert("RGBA")
            shown = Image.new("RGBA", seen.size, "white")
            shown.alpha_composite(seen)
        return upright(shown.convert("RGB"), orientation)


def load_ids(path: Path | str) -> np.ndarray:
    """Return the pixels (H, W) or (H, W, C) of a file as they are stored, such as class ids.

    Raises:
        Unreadable: if the file cannot be read.
    """
    with reading(path), Image.open(path) as image:
        return np.asarray(image)


def load_deep(path: Path | str) -> np.ndarray:
    """Return the grey levels (H, W), or colours (H, W, 3), of a file with more than 8 bits.

    Raises:
        Unreadable: if the file cannot be read.
    """
    with reading(path), Image.open(path) as image:
        values = _all_bits(image, path)
        return values if values.ndim == 2 else values[..., :3]


def header(path: Path | str) -> Header:
    """Return what an image is, without decoding it.

    Raises:
        Unreadable: if the file cannot be read.
    """
    frame = frame_of(path)
    if frame is not None:
        with reading(path):
            video = probe(frame[0])
        return Header(video.height, video.width, False, 1, False, False)
    with reading(path), Image.open(path) as image:
        orientation = 1 if image.format == "TIFF" else _orientation(image)
        width, height = image.size[::-1] if orientation > 4 else image.size
        several = False
        if image.format in ("GIF", "PNG", "TIFF", "WEBP"):
            with suppress(Exception):  # the first picture may be intact though others are not
                several = getattr(image, "n_frames", 1) > 1
        transparent = _is_transparent(image) and not _is_deep_grey(image.mode)
        return Header(height, width, _is_deep(image), orientation, transparent, several)


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return the image, turned as a viewer does for this EXIF orientation."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _is_deep(image: Image.Image) -> bool:
    """Return whether the channels of an image that is not loaded yet have more than 8 bits."""
    tiles = getattr(image, "tile", ())  # of a file: decoder, place, offset, kind of pixels
    return _is_deep_grey(image.mode) or any(";16" in str(tile[3]) for tile in tiles)


def _is_deep_grey(mode: str) -> bool:
    """Return whether images of this mode have one channel of more than 8 bits."""
    return mode in ("I", "F") or mode.startswith("I;")


def _all_bits(image: Image.Image, path: Path | str) -> np.ndarray:
    """Return pixels of more than 8 bits (H, W), (H, W, 3), or (H, W, 4) with the opacity.

    Of colours Pillow keeps the upper 8 of 16 bits, in which those of a 12-bit camera are black. Of
    a PNG all of them are read, where torchvision has this.
    """
    if _is_deep_grey(image.mode):
        return np.asarray(image)
    values = _all_bits_of_png(path) if image.format == "PNG" else None
    if values is not None:
        return values[..., [0, 0, 0, 1]] if values.shape[2] == 2 else values  # grey and opacity
    upper = image.convert("RGBA" if _is_transparent(image) else "RGB")
    return np.asarray(upper).astype(np.uint16) * 257


def _all_bits_of_png(path: Path | str) -> np.ndarray | None:
    try:
        from torchvision.io import ImageReadMode, decode_png  # seconds to import
    except ImportError:  # its decoders are to move to another package
        return None
    import torch

    content = torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8)
    values = decode_png(content, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    return None if values.dtype == np.uint8 else values  # 8 bits before version 0.20


def _orientation(image: Image.Image) -> int:
    # Pillow decodes a whole PNG to look for what is rarely there.
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & set(image.info):
        return 1
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken EXIF beside whole pixels
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _scaled(values: np.ndarray, levels: Levels) -> Image.Image:
    low, high = levels.floating if values.dtype.kind == "f" else levels.integer
    numbers = np.nan_to_num(values.astype(np.float32), nan=low)
    shares = np.clip((numbers - low) / (high - low), 0, 1)
    if shares.shape[2:] == (4,):
        shares[..., 3] = numbers[..., 3] / 65535
    return Image.fromarray((shares * 255).round().astype(np.uint8))
