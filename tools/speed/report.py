"""Tables as Markdown, JSON and CSV, progress, and what machine it was."""

from __future__ import annotations

import csv
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import lightning
import torch

from solo_ood.host import installed
from solo_ood.pages import markdown

Row = dict[str, Any]


def machine() -> str:
    """Describe what the figures were taken on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        named = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = named[0].split(":", 1)[1].strip() if named else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GB, {gpu}; python "
        f"{platform.python_version()}, torch {torch.__version__.split('+')[0]} with "
        f"{torch.get_num_threads()} thread(s), lightning {lightning.__version__}, solo-learn "
        f"{installed.generation()}"
    )


def load() -> str:
    """Return how busy the machine is; other programs are why ratios are taken in turns."""
    return f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


class Progress:
    """What is done, on the standard error: the standard output holds the tables alone."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet, self.start = quiet, time.perf_counter()

    def say(self, what: str) -> None:
        """Print ``what`` with the minutes since the start."""
        if not self.quiet:
            minutes = (time.perf_counter() - self.start) / 60
            print(f"[{minutes:5.1f} min] {what}", file=sys.stderr, flush=True)


class Report:
    """The tables of a run, printed as soon as they are there.

    Args:
        out: a folder for ``bench.json`` and a CSV a table; ``None`` writes nothing.
        about: what goes into the JSON beside the tables.
    """

    def __init__(self, out: Path | None, about: dict[str, Any]) -> None:
        self.out = out
        self.content: dict[str, Any] = {**about, "tables": {}}

    def add(self, name: str, title: str, rows: list[Row]) -> None:
        """Print a table and write it; a column that starts with "_" is written only."""
        columns = [column for column in rows[0] if not column.startswith("_")]
        print(f"\n### {title}\n")
        print(markdown.table(columns, [[row[column] for column in columns] for row in rows]))
        sys.stdout.flush()
        self.content["tables"][name] = {"title": title, "rows": rows}
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / "bench.json").write_text(json.dumps(self.content, indent=1))
            with (self.out / f"{name}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, [column.lstrip("_") for column in rows[0]])
                writer.writeheader()
                writer.writerows({k.lstrip("_"): v for k, v in row.items()} for row in rows)


def duration(seconds: float) -> str:
    """Return ``seconds`` as a text with three digits, in ms below one second."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def percent(share: float) -> str:
    """Return a share in % with two decimals."""
    return f"{share:.2%}"
