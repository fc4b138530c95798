"""Results of the runs, kept after each one, so that a second call goes on where the first ended."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

from matrix.installed import versions
from matrix.program import WORK
from solo_ood.files import atomic

PATH = WORK / "results.json"
Results = dict[str, dict[str, Any]]  # by row: state, versions, and by column its cell


def read(path: Path = PATH) -> Results:
    return json.loads(path.read_text()) if path.is_file() else {}


def current(key: str, state: list[str], path: Path = PATH) -> dict[str, Any]:
    """Return the cells of a row; if its state has changed, forget them and what they left."""
    row = read(path).get(key, {})
    if row.get("state") == state:
        return row["cells"]
    shutil.rmtree(path.parent / "runs" / key, ignore_errors=True)
    _write({**read(path), key: {"state": state, "versions": versions(), "cells": {}}}, path)
    return {}


def keep(key: str, column: str, result: str, note: str | None, path: Path = PATH) -> None:
    """Keep the result of one run: ``yes`` or ``no``."""
    results = read(path)
    cell = {"result": result, "note": note, "date": date.today().isoformat()}
    results[key]["cells"][column] = cell
    _write(results, path)


def _write(results: Results, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    atomic.write(text.encode(), path)
