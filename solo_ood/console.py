"""What a console shows: progress, texts whose reader may be gone, errors in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from solo_ood.errors import UserError

SECONDS_BETWEEN_LINES = 30.0


def on_terminal(stream: Any) -> bool:
    """Whether a bar that redraws itself is of use there: on a terminal, or in a notebook."""
    return stream.isatty() or "ipykernel" in sys.modules


def counting_bar(total: int, what: str, unit: str) -> Any:
    """Return a tqdm bar on stderr; a pipe or a file gets a line every 30 s and one at the end."""
    from tqdm import tqdm

    if on_terminal(sys.stderr):
        return tqdm(total=total, desc=what, unit=unit)
    every = {"mininterval": SECONDS_BETWEEN_LINES, "maxinterval": SECONDS_BETWEEN_LINES}
    return tqdm(total=total, desc=what, unit=unit, ncols=79, file=_Lines(sys.stderr), **every)


def hide_version(bar: Any) -> None:
    """Leave the run's number, which is no value of its training, out of Lightning's bar."""
    bar.get_metrics = partial(_values, bar)


def _values(bar: Any, trainer: Any, module: Any) -> dict[str, Any]:
    values = type(bar).get_metrics(bar, trainer, module)
    return {name: value for name, value in values.items() if name != "v_num"}


class _Lines:
    """A stream that ends its lines where a terminal would go back to their start."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        self._stream.write(text.replace("\r", "").rstrip("\n") + "\n" if text.strip() else "")

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def user_errors() -> Iterator[None]:
    """Show a ``UserError`` as one line; everything else keeps its trace."""
    try:
        yield
    except UserError as error:  # names of files may hold line ends
        raise SystemExit(f"Error: {' '.join(str(error).splitlines())}") from None


def show(text: str) -> None:
    """Print a text; if the reader is gone, as after ``| head``, the work continues."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
