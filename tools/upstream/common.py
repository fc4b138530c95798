"""What the stages share: the work folder, programs with logs, results and their table."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from solo_ood.errors import UserError

# Written into the work folder: no folder without it is ever emptied.
MARKER = ".made-by-test-upstream"
TAIL = 15  # lines of a log that are shown after a failure


@dataclass(frozen=True)
class Result:
    """One row of the final table; ``ok`` is None where there is nothing to pass."""

    stage: str
    check: str
    ok: bool | None
    note: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """A finished program: its exit status, everything it printed, and where that is kept."""

    code: int
    output: str
    log: Path
    seconds: float


@dataclass(frozen=True)
class Work:
    """The folder of a call: ``before``, ``after`` and ``plugin`` are trees of solo-learn in it."""

    root: Path
    checkout: Path
    patches: list[Path] = field(default_factory=list)

    @property
    def before(self) -> Path:
        return self.root / "before"

    @property
    def after(self) -> Path:
        return self.root / "after"

    @property
    def plugin(self) -> Path:
        """The tree of a user of this package: the series without the method itself."""
        return self.root / "plugin"

    def run(
        self,
        log: str,
        command: Sequence[str | Path],
        cwd: Path,
        *,
        env: Mapping[str, str] | None = None,
        expected: Iterable[int] = (0,),
        timeout: float = 3600,
    ) -> Done:
        """Run a program, keep what it prints in ``logs/LOG.log``, show the end if it fails."""
        path = self.root / "logs" / f"{log}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        with path.open("w") as out:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=cwd,
                env=environment(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(timeout)
            except BaseException as error:  # interrupted: its workers must not stay behind
                os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                out.write(f"\nstopped after {timeout:.0f} s\n")
        output = path.read_text(errors="replace")
        if code not in tuple(expected):
            end = "\n".join(f"    {line}" for line in output.splitlines()[-TAIL:])
            say(f"{log}: exit status {code}; the end of {path}:\n{end}")
        return Done(code, output, path, time.monotonic() - start)

    def fresh(self, name: str) -> Path:
        """Return an empty folder of this name."""
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def blocked(self, tree: Path | None = None) -> dict[str, str]:
        """Return an environment in which this package is neither importable nor announced.

        Python finds solo-learn in ``tree``, or beside the script that runs.
        """
        folder = self.fresh("blocked")
        (folder / "hydra_plugins").mkdir()  # a package hides the namespace with our plugin
        (folder / "hydra_plugins/__init__.py").touch()
        (folder / "solo_ood.py").write_text("raise ImportError('not installed')\n")
        # The first distribution of a name on the path is the one whose entry points count.
        metadata = folder / "solo_ood-0.dist-info/METADATA"
        metadata.parent.mkdir()
        metadata.write_text("Metadata-Version: 2.1\nName: solo-ood\nVersion: 0\n")
        return {"PYTHONPATH": os.pathsep.join(str(path) for path in (tree, folder) if path)}


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the caller's Python and git settings, for one CPU thread."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GIT_"))}
    quiet = {
        "CUDA_VISIBLE_DEVICES": "",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "PYTHONWARNINGS": "ignore",
        "WANDB_MODE": "offline",
    }
    return {**env, **quiet, **extra}


def say(text: str) -> None:
    print(f"[test_upstream] {text}", flush=True)


def make_work(root: Path, checkout: Path, patches: list[Path]) -> Work:
    """Create the work folder, or take an earlier one of this script.

    Raises:
        ValueError: for a folder of another origin.
    """
    marker = root / MARKER
    if root.exists() and any(root.iterdir()) and not marker.exists():
        raise UserError(
            "--work",
            expected="an absent or empty folder, or one that this script made",
            got=f"{root}, which holds something else",
            remedy="Choose another folder.",
        )
    root.mkdir(parents=True, exist_ok=True)
    marker.touch()
    (root / ".gitignore").write_text("*\n")
    return Work(root, checkout, patches)


def module(name: str, *args: str | Path) -> list[str | Path]:
    """Return the command that runs an installed module with this interpreter."""
    return [sys.executable, "-m", name, *args]


def table(results: Iterable[Result]) -> str:
    """Return the results as a Markdown table."""
    words = {True: "pass", False: "FAIL", None: "-"}
    rows = ["| Stage | Check | Result | Note |", "|---|---|---|---|"]
    for r in results:
        note = r.note.replace("|", "\\|")
        rows.append(f"| {r.stage} | {r.check} | {words[r.ok]} | {note} |")
    return "\n".join(rows)
