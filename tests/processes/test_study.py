"""``solo-ood study`` as a user calls it: a tiny matrix, interrupted, damaged and changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from warm_host import warm_host

from solo_ood.host import installed  # noqa: F401  (in the mark)

pytestmark = pytest.mark.skipif(
    "installed.generation() != 'release'", reason="a checkout needs its own main_pretrain.py"
)
SOLO_OOD = Path(sys.executable).parent / "solo-ood"
STUDY = {
    "about": "a try",
    "data": {"source": "digits", "imbalance": 5, "largest": 30, "reference": 10},
    "overrides": [
        "+backbone.kwargs.width=2", "augmentations.0.crop_size=16", "augmentations.1.num_crops=0",
        "augmentations.1.crop_size=16", "optimizer.batch_size=16", "data.num_workers=0",
        "method_kwargs.num_prototypes=16", "method_kwargs.proj_hidden_dim=16", "max_epochs=3",
        "method_kwargs.ood.start=0", "method_kwargs.ood.scorer.n_reference=32",
        "method_kwargs.ood.scorer.min_samples=16", "method_kwargs.ood.threshold.n=20",
        "method_kwargs.ood.threshold.percentile=0.8",
    ],
    "seeds": 2,
    "arms": {
        "off": ["ood=off"],
        "oracle": ["ood=oracle"],
        "exemplar": {"overrides": ["ood=exemplar"], "exemplars": 4},
        "broken": ["optimizer.name=none"],
    },
    "against": ["off"],
}  # fmt: skip


def call(folder: Path, *arguments: object, study: dict = STUDY, **how: object) -> list[str]:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    words = [SOLO_OOD, "study", path, "--out", folder / "out", "--jobs", 2, *arguments]
    return [*map(str, words)]


def ended(*command: object, **study: object) -> subprocess.CompletedProcess:
    return subprocess.run(call(*command, **study), capture_output=True, text=True, timeout=900)


def forked(folder: Path, *command: object, **study: object) -> subprocess.CompletedProcess:
    """The same from a process that has imported everything: for calls that start no others."""
    words = call(folder, *command, **study)
    run = warm_host().program(folder, *words)
    return subprocess.CompletedProcess(words, run.wait(400), run.stdout, run.stderr)


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "out/cells").glob("*.json")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The study, of which one arm fails."""
    folder = tmp_path_factory.mktemp("study")
    return folder, ended(folder)


def test_a_failed_cell_is_shown_and_takes_no_other_down(made):
    folder, done = made
    assert done.returncode == 1, done.stderr[-2000:]
    assert len(results(folder)) == 6
    failed = [line for line in done.stdout.splitlines() if "FAILED" in line]
    assert len(failed) == 2 and all("optimizer" in line and ".log" in line for line in failed)
    assert "2 of 8 cells failed" in done.stderr
    assert "left)" in done.stdout  # how long it will still take


def test_the_tables_are_of_what_is_there(made):
    folder, done = made
    text = (folder / "out/results.md").read_text()
    assert "**2 of 8 cells are missing.**" in text
    assert "2 of 8 cells are missing." in done.stdout
    for name in ("results.json", "results.csv", "differences.png", "report.html"):
        assert (folder / "out" / name).stat().st_size > 100


def test_a_cell_tells_what_it_measured(made):
    cell = json.loads((made[0] / "out/cells/oracle--seed1--order1.json").read_text())
    assert set(cell["accuracy"]) == {"linear", "knn"}
    assert {"All", "Many", "Medium", "Few"} <= set(cell["accuracy"]["linear"])
    assert cell["checkpoint"]["epoch"] == 3
    counts = [record["images"] for record in cell["classes"]]
    assert counts == sorted(counts)[::-1] and counts[0] == 30
    assert sum(record["replayed"] for record in cell["classes"]) > 0
    assert not (made[0] / "out/work/oracle--seed1--order1").exists()


def test_results_that_are_there_are_not_made_again_and_the_same_command_gives_the_same(made):
    folder, _ = made
    before = results(folder)
    (folder / "out/cells/oracle--seed0--order0.json").unlink()
    study = {**STUDY, "arms": {k: v for k, v in STUDY["arms"].items() if k != "broken"}}
    done = ended(folder, study=study)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    assert "6 cells, 5 of them there" in done.stdout and done.stdout.count("% left") == 0
    after = results(folder)
    again = json.loads(after.pop("oracle--seed0--order0.json"))
    first = json.loads(before.pop("oracle--seed0--order0.json"))
    assert after == before
    first.pop("seconds"), again.pop("seconds")
    assert again == first


def test_results_of_other_settings_are_refused(made):
    folder, _ = made
    other = {**STUDY, "overrides": [*STUDY["overrides"], "optimizer.lr=0.1"]}
    done = forked(folder, study=other)
    assert done.returncode != 0
    assert "overrides: expected the study's" in done.stderr and "--out" in done.stderr


def test_one_cell_alone_and_the_list_of_cells(made, tmp_path):
    listed = forked(tmp_path, "--list")
    assert listed.returncode == 0 and len(listed.stdout.splitlines()) == 8
    assert "oracle, seed 0, class order 0" in listed.stdout.splitlines()[1]
    done = forked(tmp_path, "--cell", 1)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(results(tmp_path)) == ["oracle--seed0--order0.json"]
    alone = json.loads(results(tmp_path)["oracle--seed0--order0.json"])
    beside = json.loads(results(made[0])["oracle--seed0--order0.json"])
    assert alone["accuracy"] == beside["accuracy"]
    wrong = forked(tmp_path, "--cell", 99)
    assert wrong.returncode != 0 and "from 0 to 7" in wrong.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_study_leaves_no_process_and_goes_on(tmp_path, how):
    study = {
        **STUDY,
        "seeds": 1,
        "arms": {"off": ["ood=off", "max_epochs=20"]},
    }
    process = subprocess.Popen(call(tmp_path, study=study), start_new_session=True)
    work = tmp_path / "out/work/off--seed0--order0"
    end = time.monotonic() + 300
    while not list(work.glob("*/*/*.ckpt")) and time.monotonic() < end:
        time.sleep(0.2)
    process.send_signal(how)
    process.wait()
    while group_lives(process.pid) and time.monotonic() < end:
        time.sleep(0.2)
    assert not group_lives(process.pid)
    assert results(tmp_path) == {}
    started = len(list(work.glob("*/*/args.json")))
    done = ended(tmp_path, study=study)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    cell = json.loads(results(tmp_path)["off--seed0--order0.json"])
    assert started == 1 and cell["checkpoint"]["epoch"] == 20
    rows = sum(record["fresh"] for record in cell["classes"])
    assert rows == cell["checkpoint"]["steps"] * 16  # none is counted twice or lost


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_cell_killed_between_training_and_its_result_is_made_again(tmp_path):
    study = {**STUDY, "seeds": 1, "arms": {name: STUDY["arms"][name] for name in ("off", "oracle")}}
    path, found = tmp_path / "out/cells/oracle--seed0--order0.json", []
    for _ in range(2):  # the second time all of its training is there already
        done = forked(tmp_path, "--cell", 1, "--keep", study=study)
        assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
        found.append(json.loads(path.read_text()))
        found[-1].pop("seconds")
        path.unlink()
    assert found[0] == found[1]
