"""A host that is ready to run: its tree, its folder, and what a run there has left behind."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matrix import observer
from matrix.hiding import hide
from matrix.hosts import Host
from matrix.program import ROOT, WORK, Failed, require, run
from matrix.trees import make_tree


@dataclass(frozen=True)
class Row:
    """A host, the folders that Python finds first there, and the tree with its scripts."""

    host: Host
    path: tuple[Path, ...]
    tree: Path

    @property
    def folder(self) -> Path:
        """Where its runs are kept."""
        return WORK / "runs" / self.host.key

    def start(self, column: str) -> Path:
        """Return an empty folder for the column's run."""
        folder = self.folder / column
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def call(self, column: str, *command: object) -> str:
        """Run python with ``command`` in the column's folder; return the output."""
        cwd = self.folder / column
        env = {
            "PYTHONPATH": os.pathsep.join(map(str, self.path)),
            observer.FOLDER: str(cwd / "observed"),
        }
        return run([sys.executable, *command], cwd, f"{self.host.key}-{column}", env=env).output

    def script(self, name: str) -> Path:
        """Return one of the host's scripts; the release's are this project's."""
        return (self.tree if self.host.tree else ROOT / "scripts") / name

    def checkpoint(self, column: str = "pretrain") -> Path:
        """Return the one checkpoint that a run has left."""
        found = sorted((self.folder / column).glob("trained_models/dino_ood/*/*.ckpt"))
        require(len(found) == 1, f"{len(found)} checkpoints of the run `{column}` instead of 1")
        return found[0]

    def logged(self, column: str, name: str) -> list[tuple[int, int, float]]:
        """Return (epoch, step, value) of a logged quantity."""
        found = []
        for path in (self.folder / column).rglob("metrics.csv"):
            with path.open() as lines:
                for row in csv.DictReader(lines):
                    if row.get(name):
                        found.append((int(row["epoch"]), int(row["step"]), float(row[name])))
        require(found, f"no {name} was logged")
        return found

    def observed(self, column: str, rank: int = 0) -> dict[str, Any]:
        """Return what the callback in process ``rank`` saw."""
        path = self.folder / column / f"observed/{rank}.json"
        require(path.is_file(), f"process {rank} did not reach the end of training")
        return json.loads(path.read_text())

    def has_checkpoint(self) -> bool:
        """Whether the runs can start that start from one."""
        try:
            return self.checkpoint().is_file() and bool(self.observed("pretrain"))
        except Failed:
            return False


def make_row(host: Host) -> Row:
    """Make the host's tree and what is put before the environment's packages."""
    path, tree = [observer.install(WORK / "observer")], ROOT
    if host.tree:
        tree = make_tree(host.tree)
        path.append(tree)
    if not host.package:
        path.insert(0, hide(WORK / "hidden"))
    return Row(host, tuple(path), tree)
