"""Run a program with a log and a time limit, and say in one line why it failed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".matrix"  # everything made, which git ignores
# `ValueError: ...`, `torch.distributed.DistBackendError: ...`, `Error: ...` of our own messages.
REASON = re.compile(r"^(?:\[rank\d+\]: ?)?(?:[\w.]+\.)?\w*(?:Error|Exception|Exit|Interrupt)\b.*")
PATHS = re.compile(r"(?<![\w.])/(?:[^\s'\":/]+/)+")
LONGEST = 160
QUIET = {
    "CUDA_VISIBLE_DEVICES": "",  # alike on every machine
    "HYDRA_FULL_ERROR": "1",  # otherwise the last line is advice instead of the reason
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    "WANDB_MODE": "offline",
}


class Failed(Exception):
    """What a run lacks, in one line."""


class Done(NamedTuple):
    """The exit status of a program and everything it printed."""

    code: int
    output: str


def require(fulfilled: object, otherwise: str) -> None:
    if not fulfilled:
        raise Failed(otherwise)


def run(
    command: Sequence[object],
    cwd: Path,
    log: str,
    *,
    env: Mapping[str, str] | None = None,
    expected: Collection[int] = (0,),
    timeout: float = 900,
) -> Done:
    """Run ``command``; what it prints is kept in ``logs/LOG.log`` of the work folder, too.

    Args:
        env: what is added to the caller's environment less its settings for Python and git.
        expected: exit statuses that are no failure.
        timeout: seconds after which it is ended, with the processes that it started.

    Raises:
        Failed: for another exit status, or no end in time.
    """
    path = WORK / "logs" / f"{log}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GIT_"))}
    with path.open("w") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env={**own, **QUIET, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"no end within {timeout:.0f} s, see logs/{path.name}") from None
        finally:
            _end(process)
    text = path.read_text(errors="replace")
    if code not in expected:
        raise Failed(reason(text) or f"exit status {code}, see logs/{path.name}")
    return Done(code, text)


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
