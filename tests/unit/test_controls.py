"""The tables of ``make controls``, from results that are there: nothing is trained here."""

from __future__ import annotations

import json
import subprocess
import sys

from repository import ROOT

SCRIPT = ROOT / "scripts/controls.py"
ACCURACY = {"All": 90.0, "Many": 99.9, "Medium": 93.5, "Few": 34.1}
REPLAY = {"Flag rate": 5.0, "Lift": 15.9, "Distinct": 1417.4, "Replays each": 40.3, "Released": 8.0}


def test_the_tables_of_the_controls_fit_a_terminal(tmp_path):
    for seed in range(2):
        for arm in ("untrained", "off", "random", "knn", "oracle"):
            replay = {name: (1 + seed) * n for name, n in REPLAY.items()}
            numbers = {**ACCURACY, "All": 90.0 + 10 * seed}
            numbers.update({} if arm in ("untrained", "off") else replay)
            (tmp_path / f"{arm}-{seed}").mkdir()
            (tmp_path / f"{arm}-{seed}/result.json").write_text(json.dumps(numbers))
    command = [sys.executable, SCRIPT, "--out", tmp_path, "--seeds", "2", "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80, done.stdout
    accuracy, replay = (part.splitlines() for part in done.stdout.split("\n\n"))
    assert accuracy[0] == "| 2 seeds | All | Many | Medium | Few |"
    assert accuracy[2] == "| untrained | 95.0 ± 63.5 | 99.9 ± 0.0 | 93.5 ± 0.0 | 34.1 ± 0.0 |"
    assert len(accuracy) == 2 + 5 and len(replay) == 2 + 3  # no replay without a detector
    assert replay[0] == "| 2 seeds | Flag rate | Lift | Distinct | Replays each | Released |"
    assert [line.split(" | ")[0] for line in replay[2:]] == ["| random", "| knn", "| oracle"]
