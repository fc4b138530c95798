"""Ranking again beside the server, one job after the other: features are read once, then kept."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from solo_ood.errors import UserError
from solo_ood.mining.options import RankOptions


@dataclass(frozen=True)
class Made:
    """A list that was made again.

    Attributes:
        records: its rows, as ``ranking.csv`` has them.
        detector: that it is by.
        notes: what a reader should know.
        ask: names of the images whose answer would teach it most.
        write: writes it into OUT.
    """

    records: list[dict[str, Any]]
    detector: str
    notes: list[str]
    ask: list[str]
    write: Callable[[], None]


class Reranking:
    """Makes the list again with other answers, by what ``rank --feedback`` calls.

    Attributes:
        state: ``preparing``, ``ready`` or ``off``.
        reason: why it is off.

    Args:
        options: of the list.
        out: its folder.
        show: gets what ``rank`` says of a list that is written.
    """

    def __init__(self, options: RankOptions, out: Path, show: Callable[[str], None]) -> None:
        self._options = replace(options, output=replace(options.output, folder=out))
        self._show = show
        self._prepared: Any = None
        self._looked = False  # for features of regions
        self._turn = Lock()
        self._written: list[Future[Any]] = []
        self.state, self.reason = "preparing", ""
        self.levels: Any = None

    def prepare(self) -> Future[None]:
        """Begin to read data, network and features."""
        return self._begin(self._prepare)

    def make(self, sheets: Sequence[Path]) -> Future[Made]:
        """Begin to make the list with the answers of these sheets and of those before."""
        return self._begin(lambda: self._make(sheets))

    def write(self, made: Made) -> Future[None]:
        """Begin to write a list with its report."""
        future = self._begin(made.write)
        self._written = [future]
        return future

    def close(self) -> None:
        """Wait for what is being written; what is only read or computed is left undone."""
        wait(self._written)

    def _begin(self, work: Callable[[], Any]) -> Future[Any]:
        """Start ``work`` when what was begun before is done.

        In a thread that the end of the program does not wait for, as it would for a pool's.
        """
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # whoever waits may go, the work goes on

        def run() -> None:
            with self._turn:
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)

        Thread(target=run, daemon=True).start()
        return future

    def _prepare(self) -> None:
        from solo_ood.mining import again  # torch: the page is there before

        try:
            self._prepared = again.prepare(self._options, _silent)
        except UserError as error:
            try:  # of a list that was made with --keep-patches or with boxes
                self._prepared = again.prepare(again.with_patches(self._options), _silent)
            except UserError:
                self.state, self.reason = "off", str(error)
                return
        except Exception as error:  # a network's or a library's: the page goes on without it
            self.state, self.reason = "off", f"{type(error).__name__}: {error}"
            return
        self.levels = self._prepared.request.frames.levels
        self.state = "ready"

    def _make(self, sheets: Sequence[Path]) -> Made:
        from solo_ood.mining import again, output, rank

        before = [sheet for sheet in self._options.taught.feedback if sheet.exists()]
        here = {sheet.resolve() for sheet in before}
        ours = [sheet for sheet in sheets if sheet.exists() and sheet.resolve() not in here]
        sheets = [*before, *ours]
        if not self._looked and again.needs_patches(self._prepared, sheets):
            self._looked = True
            with suppress(UserError):  # the notes say what that means
                self._prepared = again.prepare(again.with_patches(self._options), _silent)
        request, listed = again.again(self._prepared, sheets)
        if ours:
            words = shlex.join(["--feedback", *map(str, ours)])
            command = f"{request.options.command} {words}".strip()
            options = replace(request.options, command=command)
            request = replace(request, options=options)
        return Made(
            output.records(listed.ranking, request.frames),
            request.detector.name,
            [*request.notes, *listed.notes],
            [request.frames.name(path) for path in listed.teaching],
            lambda: rank.write(request, listed, self._show),
        )


def _silent(text: str) -> None:
    """Leave out what ``rank`` said when the list was made first; a new one has it in its notes."""
