"""Runs of the host's ``main_pretrain.py`` and others, from a process that has imported everything.

Importing torch, Lightning and the host takes several times as long as the few steps that these
tests train. ``WarmHost`` starts one such process; it forks a child for every run, which then is
what ``python main_pretrain.py ...`` would be: the script, its arguments, a folder, output files.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import re
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from repository import NO_WIDTH, ROOT

# With conftest's TINY: 3 epochs of 3 steps, and a checkpoint of 40 MB after each. The first samples
# are flagged in step 3 and replayed from step 5 or so.
SMALL = [
    NO_WIDTH,
    "backbone.name=vit_tiny",
    "+backbone.kwargs.patch_size=16",
    "+backbone.kwargs.img_size=32",
    "+backbone.kwargs.mlp_ratio=0.5",
    "augmentations.1.num_crops=0",
    "augmentations.1.crop_size=32",
    "max_epochs=3",
    "+limit_train_batches=3",
    "+limit_val_batches=0",  # the main branch validates at 224 pixels, which this ViT does not take
    "+num_sanity_val_steps=0",
    "++method_kwargs.ood.scorer.min_samples=8",
    "++method_kwargs.ood.threshold.n=8",
    "++method_kwargs.ood.threshold.percentile=0.6",
    "++method_kwargs.ood.queue.release=0",
    "auto_resume.enabled=True",
    "+enable_progress_bar=False",
    "+enable_model_summary=False",
    "hydra/job_logging=none",  # so that Lightning says what it restores
    "hydra/hydra_logging=none",
]


def script() -> Path:
    """The ``main_pretrain.py`` of the installed host, ours for the release."""
    import solo

    from solo_ood.host import installed

    if installed.generation() == "release":
        return ROOT / "scripts/main_pretrain.py"
    return Path(solo.__file__).resolve().parent.parent / "main_pretrain.py"


class Run:
    """A started run; ``pid`` is its process, and nobody else's until ``wait`` was called."""

    def __init__(self, host: WarmHost, pid: int, folder: Path) -> None:
        self.host, self.pid, self.folder = host, pid, folder
        self.status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status once it has ended, minus the signal's number if one killed it."""
        if self.status is None:
            self.status = self.host.ask(poll=self.pid)
        return self.status

    def wait(self, timeout: float = 120) -> int:
        """Return the exit status, at the latest after ``timeout`` seconds."""
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                self.kill()
                raise TimeoutError(
                    f"run in {self.folder} after {timeout} s:\n{self.stderr[-3000:]}"
                )
            time.sleep(0.01)
        return self.status

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout.txt").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr.txt").read_text()

    def files(self, pattern: str) -> list[Path]:
        """The files of that name in the folders of all runs that were started here."""
        return list(self.folder.glob(f"trained_models/*/*/{pattern}"))

    def saved(self) -> list[Path]:
        """Checkpoints, in no order; to be looked at while the run goes on."""
        return self.files("*.ckpt")

    def checkpoints(self) -> list[Path]:
        """Checkpoints, oldest first, once the run has ended."""
        return sorted(self.saved(), key=lambda path: path.stat().st_mtime)

    def partial(self) -> list[Path]:
        """Temporary files of checkpoints."""
        return self.files(".*.partial")

    def resumed_from(self) -> str | None:
        """Return the checkpoint that Lightning says it restored last."""
        said = re.findall(r"Restored all states from the checkpoint at (.+)", self.stderr)
        return said[-1] if said else None

    def until(self, condition: Callable[[], Any]) -> bool:
        """Wait for ``condition``; return whether it came true before the run ended."""
        while not condition():
            if self.poll() is not None:
                return False
            time.sleep(0.0005)
        return True


class WarmHost:
    """Starts runs; several may go on at a time."""

    def __init__(self) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self.close)
        self._process.stdout.readline()  # everything is imported

    def close(self) -> None:
        self._process.stdin.close()  # it kills what it started, and ends
        self._process.wait(30)
        self._process.stdout.close()

    def ask(self, **question: Any) -> Any:
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the warm process ended with status {self._process.wait(30)}")
        return json.loads(answer)

    def start(
        self,
        folder: Path,
        *overrides: str,
        config: str = "dino_ood",
        max_file: int | None = None,
        **env: str,
    ) -> Run:
        """Start ``main_pretrain.py --config-name CONFIG OVERRIDES`` in ``folder``.

        Args:
            folder: the working directory, made if need be.
            overrides: of the config.
            config: its name.
            max_file: bytes that no file may exceed (``RLIMIT_FSIZE``), as on a disk that is full.
            env: further environment variables.
        """
        arguments = ["--config-name", config, *overrides]
        return self.program(folder, script(), *arguments, max_file=max_file, **env)

    def program(
        self, folder: Path, path: Path, *arguments: object, max_file: int | None = None, **env: str
    ) -> Run:
        """Start the Python script at ``path``, as ``start`` does ``main_pretrain.py``."""
        folder.mkdir(parents=True, exist_ok=True)
        argv = [str(part) for part in (path, *arguments)]
        pid = self.ask(start=argv, folder=str(folder), max_file=max_file, env=env)
        return Run(self, pid, folder)


@cache
def warm_host() -> WarmHost:
    """The one of this process, so that the test files share it."""
    return WarmHost()


@cache
def straight(*overrides: str) -> tuple[dict[str, Any], float]:
    """Return the last checkpoint of a run that nobody stops, and how long the run took (s)."""
    with tempfile.TemporaryDirectory() as folder:
        host, began = warm_host(), time.monotonic()
        run = host.start(Path(folder), *overrides)
        assert run.wait() == 0, run.stderr[-3000:]
        (path,) = run.checkpoints()
        return trained(path), time.monotonic() - began


def trained(path: Path) -> dict[str, Any]:
    """What training has made of a run; read in torch's safe mode, which needs the whole file."""
    import torch

    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    names = ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "dino_ood")
    return {name: checkpoint[name] for name in names}


def difference(mine: Any, theirs: Any, where: str = "") -> str | None:
    """Return the first place where two nested states are not equal, bit for bit."""
    import torch

    if isinstance(mine, dict) and isinstance(theirs, dict) and mine.keys() == theirs.keys():
        pairs: Any = [(key, mine[key], theirs[key]) for key in mine]
    elif isinstance(mine, (list, tuple)) and isinstance(theirs, type(mine)):
        if len(mine) != len(theirs):
            return f"{where}: lengths"
        pairs = [(i, *pair) for i, pair in enumerate(zip(mine, theirs))]
    elif isinstance(mine, torch.Tensor) and isinstance(theirs, torch.Tensor):
        if mine.shape == theirs.shape and mine.dtype == theirs.dtype:
            same = (mine == theirs) | (mine.isnan() & theirs.isnan())
            return None if bool(same.all()) else where
        return f"{where}: shapes"
    else:
        return None if repr(mine) == repr(theirs) else f"{where}: {mine!r}, {theirs!r}"
    return next((d for key, *pair in pairs if (d := difference(*pair, f"{where}/{key}"))), None)


def _serve() -> None:
    # Unused here: for the children, which find them imported.
    import lightning.pytorch  # noqa: F401  (loaded for the forks)
    import solo.methods  # noqa: F401  (loaded for the forks)

    from solo_ood.host import installed
    from solo_ood.training import method  # noqa: F401  (loaded for the forks)

    if installed.generation() == "release":
        import solo_ood.training.release_programs  # noqa: F401  (loaded for the forks)
    else:
        import solo.data.pretrain_dataloader
        import solo.utils.checkpointer  # noqa: F401  (loaded for the forks)

    print(flush=True)
    children: set[int] = set()
    for line in sys.stdin:
        question = json.loads(line)
        if "start" in question:
            pid = os.fork()
            if pid == 0:
                _become(question)
            children.add(pid)
            answer: int | None = pid
        else:
            pid, status = os.waitpid(question["poll"], os.WNOHANG)
            children.discard(pid)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), flush=True)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _become(question: dict[str, Any]) -> None:
    """Run the script in this forked process and end it as Python ends one."""
    code: Any = 1
    try:
        os.chdir(question["folder"])
        for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(question["env"])
        tempfile.tempdir = None  # look at TMPDIR again
        if question["max_file"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (question["max_file"],) * 2)
        faulthandler.dump_traceback_later(90)  # should it hang, before `wait` gives up
        sys.argv = question["start"]
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if end.code is not None else 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
