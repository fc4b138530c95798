"""Run a module of this package in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1]


def printed_by(module: str, *arguments: object) -> str:
    """Return the last line that ``python -m MODULE ARGUMENTS`` prints.

    Raises:
        RuntimeError: if it fails.
    """
    command = ["-m", module, *map(str, arguments)]
    path = os.pathsep.join([str(TOOLS), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
    return done.stdout.splitlines()[-1]
