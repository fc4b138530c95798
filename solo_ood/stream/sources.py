"""Where items come from: lines of a pipe, or a folder that grows; what is there, at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from solo_ood.data.order import natural_key
from solo_ood.data.tree import walk
from solo_ood.stream.stop import StopSignals

_AT_ONCE = 1 << 16  # bytes of a pipe


def lines(file: int, stop: StopSignals) -> Iterator[list[bytes]]:
    """Yield the lines of a pipe or file by its descriptor, those that are there at a time.

    The last one counts with or without a line end; empty ones do not.
    """
    rest = b""
    while True:
        if not stop.wait(None, file):
            return
        data = os.read(file, _AT_ONCE)
        if not data:
            break
        *whole, rest = (rest + data).split(b"\n")
        found = [line for line in map(bytes.strip, whole) if line]
        if found:
            yield found
    if rest.strip():
        yield [rest.strip()]


def named_score(line: bytes, number: int) -> tuple[str, float]:
    """Return what a line says: ``SCORE``, or ``NAME,SCORE``; a tab is as good as a comma.

    Args:
        line: without its end.
        number: of the line, which names an item that has no name.

    Raises:
        ValueError: if it ends in no number.
    """
    text = os.fsdecode(line.removeprefix(b"\xef\xbb\xbf"))
    name, comma, score = text.replace("\t", ",").rpartition(",")
    return (name.strip().strip('"') if comma else str(number)), float(score)


def images(
    root: Path,
    known: Callable[[str], bool],
    stop: StopSignals,
    follow: bool = False,
    poll: float = 1.0,
    idle: float | None = None,
) -> Iterator[list[Path]]:
    """Yield the images below a folder that are not known, in natural order, as they come.

    Args:
        root: the folder.
        known: whether an image, by its path below ``root``, was yielded before.
        stop: ends the wait.
        follow: go on looking; an image then counts once its size has stayed between two looks, so
            that none is read while it is written.
        poll: seconds between two looks.
        idle: seconds without a new image after which to end; ``None`` = never.
    """
    sizes: dict[Path, tuple[int, int]] = {}
    last_new = time.monotonic()
    while True:
        found = []
        new_sizes: dict[Path, tuple[int, int]] = {}
        for parts in walk(root).images:
            path = root.joinpath(*parts)
            if known(str(Path(*parts))):
                continue
            try:
                status = path.stat()
            except OSError:  # it is gone again
                continue
            now = (status.st_size, status.st_mtime_ns)
            if not follow or sizes.get(path) == now:
                found.append(path)
            else:
                new_sizes[path] = now
        sizes = new_sizes
        if found:
            yield sorted(found, key=natural_key)
        if not follow:
            return
        if found or sizes:
            last_new = time.monotonic()
        elif idle is not None and time.monotonic() - last_new >= idle:
            return
        if not stop.wait(poll):
            return
