"""Tiny videos that PyAV writes: every frame has a grey of its own, and some a red block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT, STEP = 64, 48, 8  # pixels; grey values between two frames
RED = (20, 20, 36, 44)  # left, top, right, bottom


def picture(number: int, red: bool = False) -> np.ndarray:
    """Frame ``number``: grey, its upper left corner black; a rare one has a red block."""
    pixels = np.full((HEIGHT, WIDTH, 3), 16 + STEP * number, np.uint8)
    pixels[:16, :16] = 0
    if red:
        left, top, right, bottom = RED
        pixels[top:bottom, left:right] = (250, 20, 20)
    return pixels


def write_video(
    path: Path, n: int = 20, codec: str = "mpeg4", rate: int = 10, rare: tuple[int, ...] = ()
) -> Path:
    """Write a video of n frames; every sixth can be decoded without the others."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.gop_size, stream.bit_rate = 6, 4_000_000
        for number in range(n):
            frame = av.VideoFrame.from_ndarray(picture(number, number in rare), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def number_of(image: Image.Image) -> int:
    """Return which frame an image is by its grey."""
    grey = np.asarray(image.convert("L"), dtype=float)[-8:, -8:].mean()
    return round((grey - 16) / STEP)
