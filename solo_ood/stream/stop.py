"""SIGINT and SIGTERM end a stream between two items, so that nothing taken in is lost."""

from __future__ import annotations

import os
import select
import signal
from types import TracebackType
from typing import Any

_STOPS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While it is entered, the first of these signals asks for the end, a second one enforces it.

    Attributes:
        asked: whether one came.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> StopSignals:
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, False)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        self._handlers: dict[int, Any] = {n: signal.signal(n, self._ask) for n in _STOPS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        for end in self._pipe:
            os.close(end)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True
        for number in _STOPS:
            signal.signal(number, signal.SIG_DFL)

    def wait(self, seconds: float | None, file: int | None = None) -> bool:
        """Wait until ``file`` can be read, or so many seconds; return whether to go on."""
        if not self.asked:
            files = [self._pipe[0]] + ([] if file is None else [file])
            select.select(files, [], [], seconds)
        return not self.asked
