"""Run the cells of a study side by side, each in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from solo_ood.errors import UserError
from solo_ood.study.cell import Place, run_cell
from solo_ood.study.plan import Cell, Study

Show = Callable[[str], None]


def found(study: Study, place: Place) -> dict[Cell, dict[str, Any]]:
    """Return the results that are there, by cell.

    Raises:
        UserError: for a result of other settings than the study's, or one that cannot be read.
    """
    results = {}
    for cell in study.cells:
        path = place.result(cell)
        if not path.is_file():
            continue
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            made_with = result["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"result {path}",
                expected="what solo-ood study wrote",
                got=f"{type(error).__name__}: {error}",
                remedy="Remove the file; its cell is then made again.",
            ) from None
        wanted = json.loads(json.dumps(study.settings(cell)))
        for key in wanted:
            if made_with.get(key) != wanted[key]:
                raise UserError(
                    f"{path}, {key}",
                    expected=f"the study's {wanted[key]}",
                    got=made_with.get(key),
                    remedy="Name another folder by --out, or remove the results of the old study.",
                )
        results[cell] = result
    return results


def run_all(
    study: Study, cells: Sequence[Cell], place: Place, jobs: int, show: Show = print
) -> list[Cell]:
    """Make cells, ``jobs`` at a time; return those that failed, whose reason was shown.

    A cell that fails takes no other down. Processes are forked from one that has imported what they
    need, so that a start costs nothing, and compute in one thread each: networks this small are
    slower by two.
    """
    context = _forking_context()
    todo, failed = list(cells), []
    running: dict[Any, tuple[Any, Cell, float]] = {}
    started, n_done = time.monotonic(), 0
    # By default SIGTERM ends a process without `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        while todo or running:
            while todo and len(running) < jobs:
                cell = todo.pop(0)
                process = context.Process(target=_work, args=(study, cell, place))
                process.start()
                running[process.sentinel] = (process, cell, time.monotonic())
            for sentinel in wait(list(running)):
                process, cell, began = running.pop(sentinel)
                process.join()
                n_done += 1
                left = (time.monotonic() - started) / n_done * (len(cells) - n_done)
                head = f"[{n_done}/{len(cells)}] {label(cell)}"
                tail = f"({time.monotonic() - began:.0f} s; {_duration(left)} left)"
                if process.exitcode == 0:
                    show(f"{head}: {_short(place.result(cell))} {tail}")
                else:
                    failed.append(cell)
                    show(f"{head}: FAILED, {_reason(place.log(cell), process.exitcode)} {tail}")
    finally:
        for process, *_ in running.values():
            process.terminate()
            process.join()
    return failed


def _forking_context() -> Any:
    """Start the process that imports what cells need, and from which they are forked."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["solo_ood.study.preload"])
    here = os.getcwd()
    # It looks for modules where it is started, and in a checkout of this project there is a folder
    # of the package's name without its configs. The cells are in the study's own folder again.
    os.chdir(Path(__file__).resolve().parents[2])
    try:
        forkserver.ensure_running()
    finally:
        os.chdir(here)
    return context


def label(cell: Cell) -> str:
    """Return the cell in words."""
    words = [cell.arm, cell.budget, f"seed {cell.seed}", f"class order {cell.order}"]
    return ", ".join(filter(None, words))


def _work(study: Study, cell: Cell, place: Place) -> None:
    """Make a cell in a process of its own; what it prints goes to its log."""
    threading.Thread(target=_end_with_study, daemon=True).start()
    log = place.log(cell)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    try:
        run_cell(study, cell, place)
    except BaseException as error:
        traceback.print_exc()
        sys.stderr.flush()
        text = " ".join(str(error).split())
        print(f"{type(error).__name__}: {text}", file=sys.stderr, flush=True)
        os._exit(1)  # the trace is written; what else the process holds is not needed


def _end_with_study() -> None:
    """End this process with the study's, also one that is killed.

    Or the next call would make the cell a second time beside it. (The process it was forked from
    lives as long as a cell does.)
    """
    study = multiprocessing.parent_process()
    if study is not None:
        wait([study.sentinel])
        os._exit(1)


def _reason(log: Path, status: int) -> str:
    lines: list[str] = []
    with suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    killed = f"by signal {-status}" if status < 0 else f"with status {status}"
    last = lines[-1][:300] if lines and status > 0 else f"ended {killed}"
    return f"{last} (see {log})"


def _short(path: Path) -> str:
    accuracy = json.loads(path.read_text(encoding="utf-8"))["accuracy"]
    main = accuracy.get("linear") or next(iter(accuracy.values()))
    return "linear " + "  ".join(f"{name} {value:.1f}" for name, value in main.items())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
