#!/usr/bin/env python3
"""Make the table of docs/compatibility.md by running everything in it: ``make compatibility``.

Every cell is a run on tiny real data (digits) and is judged by what it produced. Results are kept
after each one, so that a second call goes on where the first one stopped; a row whose versions,
patches or ``solo_ood`` have changed since is run anew.

    python tools/compatibility.py --checkout PATH [--rows today --columns pretrain DDP] [--fresh]
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from compat import observer
from compat.cells import COLUMNS, NEED_CHECKPOINT, Row, ready
from compat.environments import make_environment
from compat.hosts import HOSTS, ROOT, SERIES, Host, check, make_tree, patches
from compat.program import Failed
from compat.table import END, START, Results, publish, read, table, write

from solo_ood.data.digits import digits_lt


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkout",
        type=Path,
        default=os.environ.get("SOLO_LEARN_CHECKOUT") or None,
        help="a git checkout of solo-learn's main branch, which is only read "
        "(default: $SOLO_LEARN_CHECKOUT)",
    )
    parser.add_argument("--work", type=Path, default=ROOT / ".compat", help="everything made")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/compatibility.md")
    keys = [host.key for host in HOSTS]
    parser.add_argument("--rows", nargs="+", choices=keys, default=keys, metavar="ROW")
    parser.add_argument(
        "--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS), metavar="COLUMN"
    )
    parser.add_argument("--fresh", action="store_true", help="run what was run before, too")
    parser.add_argument("--timeout", type=float, default=900, help="seconds a run may take")
    return parser.parse_args(argv)


def make_work(folder: Path) -> Path:
    """Return the work folder, which git ignores."""
    folder = folder.expanduser().resolve()
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    return folder


def make_hiding_folder(folder: Path) -> Path:
    """Make a folder for PYTHONPATH that hides this package, its plugin and its entry points."""
    info = folder / "solo_ood-0.dist-info"  # metadata of a name are taken where they come first
    plugins = folder / "hydra_plugins"
    for path in (info, plugins):
        path.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: solo-ood\nVersion: 0\n")
    (plugins / "__init__.py").touch()
    (folder / "solo_ood.py").write_text("raise ImportError('hidden')\n")
    return folder


def prepare(host: Host, args: argparse.Namespace, results: Results) -> Row:
    """Make the host's tree and environment; forget its results if they are of something else."""
    tree, commit, path = ROOT, "", [observer.install(args.work / "observer")]
    if not host.release:
        tree, commit = make_tree(host, check(args.checkout), args.work, args.timeout)
        path.append(tree)
    environment = make_environment(host, tree, args.work)
    if host.in_tree:
        path.insert(0, make_hiding_folder(args.work / "hidden"))
    state = [commit, *environment.state]
    old = results.get(host.key, {})
    kept = old["cells"] if old.get("state") == state else {}
    if args.fresh:
        kept = {column: cell for column, cell in kept.items() if column not in args.columns}
    results[host.key] = {
        "state": state,
        "versions": environment.versions,
        "commit": commit.split(" ")[0],
        "cells": kept,
    }
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "MPLBACKEND": "Agg"}
    env |= {"CUDA_VISIBLE_DEVICES": "", "WANDB_MODE": "disabled"}  # alike on every machine
    env["HYDRA_FULL_ERROR"] = "1"  # otherwise the last line is advice instead of the reason
    folder, logs = args.work / "runs" / host.key, args.work / "logs"
    return Row(host, environment.python, tuple(path), tree, folder, logs, args.timeout, env)


def wanted(row: Row, cells: dict[str, Any], columns: Sequence[str]) -> list[str]:
    """Return the columns that are to be run, in order, with the pre-training if they need it."""
    todo = [column for column in COLUMNS if column in columns and column not in cells]
    needed = any(column in NEED_CHECKPOINT for column in todo)
    if needed and "pretrain" not in todo and not (ready(row) and "pretrain" in cells):
        todo.insert(0, "pretrain")
    return todo


def judge(row: Row, column: str) -> dict[str, Any]:
    """Run one cell; return its result."""
    start = time.monotonic()
    try:
        result, note = "yes", COLUMNS[column](row)
    except Failed as failure:
        result, note = "no", f"`{failure}`".replace("|", "\\|")
    seconds = round(time.monotonic() - start)
    print(f"{row.host.key:8} {column:10} {result:3} {seconds:4} s  {note or ''}", flush=True)
    return {"result": result, "note": note, "seconds": seconds, "date": date.today().isoformat()}


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    # As an exception, so that the run in progress is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args.work = make_work(args.work)
    os.environ["SOLO_OOD_CACHE"] = str(args.work / "cache")
    digits_lt()
    path = args.work / "compatibility.json"
    results, errors = read(path), 0
    for host in (host for host in HOSTS if host.key in args.rows):
        if host.series and not patches(host):
            print(f"{host.key}: series not found in {SERIES.relative_to(ROOT)}, row skipped")
            continue
        try:
            row = prepare(host, args, results)
        except (ValueError, RuntimeError) as error:
            print(f"Error: {error}", file=sys.stderr)
            errors += 1
            continue
        cells = results[host.key]["cells"]
        for column in wanted(row, cells, args.columns):
            cells[column] = judge(row, column)
            write(path, results)
    text = table(results)
    print(f"\n{text}\n")
    if not publish(text, args.page):
        print(f"not written: {args.page.name} has no markers {START} and {END}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
