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
        mode: Pillow's.
        orientation: of EXIF, 1 = stored upright.
        transparent: whether it may show what is behind it.
        several: whether the file holds more pictures than the first.
    """

    height: int
    width: int
    mode: str
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
        image.load()
        orientation = _orientation(image)  # after loading, which turns a TIFF
        if is_deep(image.mode):
            shown = _scaled(np.asarray(image), levels or Levels())
        elif _is_transparent(image):
            seen = image.convert("RGBA")
            shown = Image.new("RGBA", seen.size, "white")
            shown.alpha_composite(seen)
        else:
            shown = image
        return upright(shown.convert("RGB"), orientation)


def load_ids(path: Path | str) -> np.ndarray:
    """Return the pixels (H, W) or (H, W, C) of a file as they are stored, such as class ids.

    Raises:
        Unreadable: if the file cannot be read.
    """
    with reading(path), Image.open(path) as image:
        return np.asarray(image)


def header(path: Path | str) -> Header:
    """Return what an image is, without decoding it.

    Raises:
        Unreadable: if the file cannot be read.
    """
    frame = frame_of(path)
    if frame is not None:
        with reading(path):
            video = probe(frame[0])
        return Header(video.height, video.width, "RGB", 1, False, False)
    with reading(path), Image.open(path) as image:
        orientation = 1 if image.format == "TIFF" else _orientation(image)
        width, height = image.size[::-1] if orientation > 4 else image.size
        several = False
        if image.format in ("GIF", "PNG", "TIFF", "WEBP"):
            with suppress(Exception):  # the first picture may be intact though others are not
                several = getattr(image, "n_frames", 1) > 1
        transparent = _is_transparent(image) and not is_deep(image.mode)
        return Header(height, width, image.mode, orientation, transparent, several)


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return the image, turned as a viewer does for this EXIF orientation."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def is_deep(mode: str) -> bool:
    """Return whether images of this mode have one channel of more than 8 bits."""
    return mode in ("I", "F") or mode.startswith("I;")


def _orientation(image: Image.Image) -> int:
    # Pillow decodes a whole PNG to look for what is rarely there.
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & set(image.info):
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken EXIF beside whole pixels
        return 1


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _scaled(values: np.ndarray, levels: Levels) -> Image.Image:
    low, high = levels.floating if values.dtype.kind == "f" else levels.integer
    values = np.nan_to_num(values.astype(np.float32), nan=low)
    shares = np.clip((values - low) / (high - low), 0, 1)
    return Image.fromarray((shares * 255).round().astype(np.uint8))
