"""``make bench`` really run, with tiny settings; nothing is asserted of how long anything takes."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import subprocess
import sys

import pytest
from repository import ROOT

SECTIONS = ["steps", "parts", "waits", "growth"]


@pytest.fixture(scope="module")
def bench(registered, tmp_path_factory):
    """Run the program; return what it printed and the folder that it wrote."""
    from solo_ood.host import installed

    if installed.generation() != "release":
        pytest.skip("the bench is for solo-learn 1.0.2")
    out = tmp_path_factory.mktemp("bench")
    command = ["tools/bench.py", "--quick", "--sections", *SECTIONS, "--out", out]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, out


def tables(printed: str) -> list[list[list[str]]]:
    """The Markdown tables of a text, as cells."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", printed, re.M)
    return [[[c.strip() for c in row.split("|")[1:-1]] for row in b.splitlines()] for b in blocks]


def test_prints_a_table_of_every_section_and_the_machine(bench):
    printed, _ = bench
    found = tables(printed)
    assert len(found) == len(SECTIONS)
    for header, rule, *rows in found:
        assert set(rule) == {"---"} and rows
        assert all(len(row) == len(header) == len(rule) for row in rows)
    assert re.match(r".+ cores, \d+ GB, .+; python 3.+ torch .+ load [\d.]+", printed)


def test_ratios_are_positive_and_inside_their_intervals(bench):
    _, out = bench
    rows = json.loads((out / "bench.json").read_text())["tables"]["steps"]["rows"]
    assert [row["arm"] for row in rows] == ["stock", "stock again", "off", "knn"]
    for row in rows:
        for ratio, low, high in (
            ("_ratio", "_low", "_high"),
            ("_cpu_ratio", "_cpu_low", "_cpu_high"),
        ):
            assert 0 < row[low] <= row[ratio] <= row[high] < math.inf
    assert rows[0]["_ratio"] == 1
    # 9 steps of 2 rows; the first finds nobody to judge, the last verdicts are still on their way.
    assert rows[3]["replayed rows"] >= 12


def test_parts_are_shares_of_the_step(bench):
    _, out = bench
    (row,) = json.loads((out / "bench.json").read_text())["tables"]["parts"]["rows"]
    assert {"embed", "score", "learn", "threshold", "queue", "log, rest", "mix"} <= row[
        "_seconds"
    ].keys()
    assert 0 < row["_share"] < 1


def test_every_table_is_a_csv_file_too(bench):
    _, out = bench
    for section in SECTIONS:
        with (out / f"{section}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows and all(None not in row and None not in row.values() for row in rows)


def test_intervals_hold_the_median_and_pairs_cancel_a_slow_machine():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from timing import in_turns, paired_ratio
    finally:
        sys.path.pop(0)
    slow = [1.0, 5.0, 2.0, 40.0, 3.0]
    same = paired_ratio([1.1 * x for x in slow], slow)
    assert same.low == pytest.approx(1.1) and same.high == pytest.approx(1.1)
    mixed = paired_ratio([1, 2, 3, 4, 5, 6], [1] * 6)
    assert mixed.low < mixed.median == 3.5 < mixed.high
    ticks = iter(range(1000))
    taken = in_turns({"a": lambda: next(ticks), "b": lambda: None}, 3, clock=lambda: next(ticks))
    assert taken == {"a": [2, 2, 2], "b": [1, 1, 1]}  # one tick of the clock, one of its own
