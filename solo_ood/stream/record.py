"""The verdicts on the disk and the state beside them, which agree at every moment."""

from __future__ import annotations

import csv
import io
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from solo_ood.errors import UserError
from solo_ood.files import atomic, checkpoint
from solo_ood.files.output import check_writable
from solo_ood.files.text import printable
from solo_ood.stream.verdicts import Verdict

HEAD = ("name", "score", "rare")
SECONDS_BETWEEN_SAVES = 1.0
_WORDS = {True: "yes", False: "no", None: ""}


class Record:
    """Writes verdicts and saves the state that goes with them.

    What a killed process wrote after its last save is taken back by the next one, so that each item
    has one line in the file ``out``. (Standard output cannot be taken back.)

    Args:
        out: a CSV; ``None`` = standard output.
        state: the file of the state; ``None`` = none is kept.

    Raises:
        UserError: if one cannot be written.
    """

    def __init__(self, out: Path | None, state: Path | None) -> None:
        self.out, self.state = out, state
        for path, option in ((out, "--out"), (state, "--state")):
            if path is not None:
                check_writable(path.parent, option, path.name)
        self._saved_at = time.monotonic()
        self._file: Any = None

    def saved(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the saved state; ``None`` if there is none yet.

        Raises:
            UserError: for a state of other settings, or without its CSV.
        """
        if self.state is None or not self.state.exists():
            return None
        try:
            found = checkpoint.read(self.state)
            mine = isinstance(found, dict) and {"settings", "bytes", "stream"} <= found.keys()
        except checkpoint.Unreadable as error:
            found, mine = str(error), False
        if not mine:
            raise UserError(
                f"--state {self.state}",
                expected="what solo-ood stream wrote",
                got=found if isinstance(found, str) else "something else",
                remedy="Name another file, or remove it to begin anew.",
            )
        for key, value in settings.items():
            if found["settings"].get(key) != value:
                raise UserError(
                    f"--state {self.state}, {key}",
                    expected=f"{found['settings'].get(key)}, as it was begun with",
                    got=value,
                    remedy="Call it as before, or name another file for a new stream.",
                )
        length = self.out.stat().st_size if self.out and self.out.exists() else 0
        if self.out is not None and length < found["bytes"]:
            raise UserError(
                f"--out {self.out}",
                expected=f"the {found['bytes']} bytes that were written with --state {self.state}",
                got=f"{length} bytes" if self.out.exists() else "no file",
                remedy="Name the CSV of that stream, or remove the state to begin anew.",
            )
        return dict(found)

    def open(self, at: int | None) -> None:
        """Open the CSV; ``at`` = the bytes of it that are right, ``None`` = begin it.

        Raises:
            UserError: if there is a CSV of a stream whose state is not known.
        """
        if self.out is None:
            self._file = sys.stdout.buffer
        elif at is not None:
            self._file = self.out.open("r+b")
            self._file.truncate(at)
            self._file.seek(at)
        elif self.out.exists() and self.out.stat().st_size:
            raise UserError(
                f"--out {self.out}",
                expected="no file yet, or --state with the state that belongs to it",
                got="a file that is not empty",
                remedy="Name another file, or remove this one.",
            )
        else:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.out.open("wb")
        if at is None:
            self._write([HEAD])

    def write(self, verdicts: Sequence[Verdict]) -> None:
        """Write a line for each verdict.

        Raises:
            BrokenPipeError: if the reader of standard output is gone.
        """
        self._write([(printable(v.name), _text(v.score), _WORDS[v.rare]) for v in verdicts])

    def _write(self, rows: Sequence[Sequence[str]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())
        self._file.flush()

    def save(self, settings: Mapping[str, Any], stream: Any, now: bool = False) -> None:
        """Save the state, at most once a second unless ``now``; ``stream()`` returns it."""
        if self.state is None:
            return
        if not now and time.monotonic() - self._saved_at < SECONDS_BETWEEN_SAVES:
            return
        length = 0
        if self.out is not None:
            os.fsync(self._file.fileno())  # the state must not tell of lines that a crash took
            length = self._file.tell()
        content = io.BytesIO()
        torch.save({"settings": dict(settings), "bytes": length, "stream": stream()}, content)
        self.state.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(content.getbuffer(), self.state)
        self._saved_at = time.monotonic()

    def close(self) -> None:
        """Close the CSV."""
        if self.out is not None and self._file is not None:
            self._file.close()


def _text(score: float) -> str:
    return "" if score != score else f"{score:.7g}"
