"""The kit for a machine with a GPU: built, and every stage tried with tiny sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

STAGES = ("tests", "memory", "bench", "study")


@pytest.fixture(scope="module")
def kit(registered, tmp_path_factory):
    """Build the kit with the embedded digits."""
    from solo_ood.host import installed

    if installed.generation() != "release":
        pytest.skip("the kit holds solo-learn 1.0.2")
    folder = tmp_path_factory.mktemp("gpu") / "kit"
    command = [sys.executable, "-W", "ignore", "tools/gpu/build.py", "--out", folder]
    built = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def results(kit):
    """Run every stage by the packages of the kit; return the folder that they wrote."""
    out = kit.parent / "results"
    folders = {"SITE": kit.parent / "site", "OUT": out, "TMPDIR": kit.parent}
    # The machine has a python3 with torch; here that of the tests is one.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    tiny = ["--arms", "off", "exemplar", "--epochs", "2"]
    stages = ["tests,memory", "bench", "study"]
    done = subprocess.run(
        ["sh", kit / "run.sh", *stages, "--quick", "--more", *tiny],
        env={**os.environ, **{k: str(v) for k, v in folders.items()}, "PATH": path, "LIMIT": "900"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return out


def test_the_kit_is_small_and_holds_all_that_the_machine_lacks(kit):
    wheels = {path.name.split("-")[0] for path in (kit / "wheels").iterdir()}
    assert wheels == {
        "antlr4_python3_runtime", "hydra_core", "omegaconf", "solo_learn", "solo_ood"
    }  # fmt: skip
    assert all(path.name.endswith("-none-any.whl") for path in (kit / "wheels").iterdir())
    assert sum(path.stat().st_size for path in kit.rglob("*") if path.is_file()) < 60e6


def test_every_stage_runs_and_writes_its_log(results):
    assert {path.stem for path in results.glob("*.log")} == set(STAGES)
    for stage in ("memory", "bench"):
        tables = json.loads((results / stage / "bench.json").read_text())["tables"]
        assert all(table["rows"] for table in tables.values())


def test_the_study_compares_its_arms(results):
    cells = {path.name: json.loads(path.read_text()) for path in results.glob("study/cells/*.json")}
    assert cells.keys() == {f"{arm}--seed0--order0.json" for arm in ("off", "exemplar")}
    exemplar = cells["exemplar--seed0--order0.json"]
    assert sum(line["fresh"] for line in exemplar["classes"]) > 0
    assert exemplar["checkpoint"]["epoch"] == 2 and exemplar["logged"]["distinct_replayed"] > 0
    assert "exemplar" in (results / "study/results.md").read_text()
