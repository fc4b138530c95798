"""Run a program with a log and a time limit, and say in one line why it failed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# `ValueError: ...`, `torch.distributed.DistBackendError: ...`, `Error: ...` of our own messages.
REASON = re.compile(r"^(?:\[rank\d+\]: ?)?(?:[\w.]+\.)?\w*(?:Error|Exception|Exit|Interrupt)\b.*")
PATHS = re.compile(r"(?<![\w.])/(?:[^\s'\":/]+/)+")
LONGEST = 160


class Failed(Exception):
    """What went wrong in a cell, in one line."""


def run(
    command: Sequence[object],
    cwd: Path,
    log: Path,
    timeout: float,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run ``command`` and return what it printed, which is also kept in ``log``.

    Raises:
        Failed: for an exit status other than 0 or no end within ``timeout`` seconds.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        # A session of its own: the processes that it starts itself can be ended with it.
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"no end within {timeout:.0f} s") from None
        finally:
            _end(process)
    text = log.read_text(errors="replace")
    if code:
        raise Failed(reason(text) or f"exit status {code}")
    return text


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, if it still runs, and those that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def reason(text: str) -> str:
    """Return the last line that names an error, without folders; the last line if none does."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if REASON.match(line)] or lines
    line = PATHS.sub("", named[-1]) if named else ""
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
