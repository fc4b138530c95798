"""2 and 4 processes: in step with each other, and the same training as one process."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import Popen

import processes_run
import pytest
import torch
from processes_run import GLOBAL_BATCH, digest
from warm_host import warm_host

from solo_ood.selection.rare_queue import RareQueue

OOD = "++method_kwargs.ood."
# Mixed batches keep all fresh rows, so their order is that of one process.
WHOLE = ["whole", f"{OOD}mix.mode=append"]
RESUMED = [f"{OOD}mix.mode=append"]
# A queue that runs dry; 90 samples make no whole batches of 16.
DRY = [
    "dry",
    "padded",
    "method_kwargs.ood.threshold.percentile=0.9",
    f"{OOD}queue.max_replays=1",
    f"{OOD}scorer.name=random",
]
UNEQUAL = [
    "unequal",
    "unequal",
    "unlike",
    "max_epochs=2",
    f"{OOD}scorer.name=mahalanobis",
    "method_kwargs.ood.scorer.n_reference=1024",  # none fades out
]
REPLAYED = GLOBAL_BATCH // 4  # on all processes, by mix.ratio
PROCESSES = (2, 4)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def torchrun(nodes: int, folder: Path, tiny: list[str], *runs: list[str]) -> None:
    """Start the runs by torchrun, with a launcher for each node on this machine; none may hang."""
    command = [
        *(sys.executable, "-W", "ignore", "-m", "torch.distributed.run"),
        *(f"--nnodes={nodes}", "--nproc-per-node=1", "--rdzv-backend=c10d"),
        *(f"--rdzv-endpoint=localhost:{free_port()}", "--local-addr=127.0.0.1"),
        *(processes_run.__file__, str(folder), json.dumps([tiny, *runs])),
    ]
    files = [folder / f"launcher-{node}.txt" for node in range(nodes)]
    launchers = []
    for file in files:
        with file.open("w") as errors:
            launchers.append(Popen(command, stdout=subprocess.DEVNULL, stderr=errors))
    try:
        for launcher, file in zip(launchers, files):
            assert launcher.wait(timeout=400) == 0, file.read_text()[-5000:]
    finally:
        for launcher in launchers:
            launcher.terminate()  # it ends its processes
            launcher.wait()


def forked(processes: int, folder: Path, tiny: list[str], *runs: list[str]) -> None:
    """Start the runs in the environment of torchrun, forked from one process for its imports."""
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "none",  # by which Lightning knows it
    }
    started = [
        warm_host().program(
            folder / f"process-{processes}-{rank}", processes_run.__file__, folder,
            json.dumps([tiny, *runs]), RANK=str(rank), LOCAL_RANK=str(rank), **shared,
        )
        for rank in range(processes)
    ]  # fmt: skip
    try:
        for process in started:
            assert process.wait(timeout=400) == 0, process.stderr[-5000:]
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()


@pytest.fixture(scope="module")
def records(tmp_path_factory, registered, tiny):
    """Return what each process of a run recorded: ``records(name, processes)``."""
    folder = tmp_path_factory.mktemp("processes")

    def saved(processes):
        return str(folder / f"whole-{processes}.ckpt")

    processes_run.run(WHOLE[0], folder, tiny, WHOLE[1:])
    forked(2, folder, tiny, WHOLE, DRY, UNEQUAL, ["from1", *RESUMED, saved(1)])
    forked(4, folder, tiny, WHOLE, DRY, UNEQUAL, ["from2", *RESUMED, saved(2)])
    torchrun(2, folder, tiny, ["from4", *RESUMED, saved(4)])
    processes_run.run("from2", folder, tiny, [*RESUMED, saved(2)])

    def read(name, processes):
        files = [folder / f"{name}-{processes}-{rank}.pt" for rank in range(processes)]
        return [torch.load(file, weights_only=True) for file in files]

    return read


def union(ranks, step):
    return [index for rank in ranks for index in rank["replays"][step]]


def assert_close(state, expected):
    assert state.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(state[key], value, rtol=1e-3, atol=1e-4, equal_nan=True)


def assert_same_training(ranks, one, first_step=0):
    """The processes' states, replays and mean losses are those of one process."""
    losses = torch.tensor([rank["losses"] for rank in ranks]).mean(dim=0)
    torch.testing.assert_close(losses, torch.tensor(one["losses"][first_step:]), rtol=0, atol=1e-3)
    replays = [union(ranks, step) for step in range(len(losses))]
    assert replays == one["replays"][first_step:] and sum(map(bool, replays)) > 4
    assert_close(ranks[0]["weights"], one["weights"])
    mine, its = ranks[0]["selector"], one["selector"]
    for part in ("scorer", "threshold"):
        assert_close(mine[part], its[part])
    assert mine["counts"] == its["counts"] and mine["counts"]["flagged"] > 10
    assert digest(mine["queue"]) == digest(its["queue"])


# -- in step -----------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", PROCESSES)
@pytest.mark.parametrize("name", ["whole", "dry", "unequal"])
def test_scorer_threshold_and_queue_are_equal_after_every_step(name, processes, records):
    first, *others = records(name, processes)
    steps = len(first["digests"])
    assert len(set(first["digests"])) == steps >= 12
    assert all(other["digests"] == first["digests"] for other in others)


@pytest.mark.parametrize("processes", PROCESSES)
@pytest.mark.parametrize("name", ["whole", "dry", "unequal"])
def test_replays_of_all_processes_equal_one_draw_of_the_queue(name, processes, records):
    ranks = records(name, processes)
    steps = len(ranks[0]["replays"])
    for step in range(steps):
        queue = RareQueue(capacity=1024, max_replays=1 if name == "dry" else 16)
        queue.load_state_dict(ranks[0]["queues"][step])
        assert union(ranks, step) == queue.draw(REPLAYED)
        assert len({len(rank["replays"][step]) for rank in ranks}) == 1
    assert sum(bool(union(ranks, step)) for step in range(steps)) > 2


@pytest.mark.parametrize("processes", PROCESSES)
def test_processes_without_flags_or_queue_do_not_block(processes, records):
    ranks = records("dry", processes)
    flags = ranks[0]["flagged"]
    assert any(flags) and not all(flags)
    replayed = "".join(str(int(bool(union(ranks, step)))) for step in range(len(flags)))
    assert "10" in replayed and "01" in replayed.lstrip("0")  # ran dry, was filled again
    assert len(ranks[0]["queues"][0]["indexes"]) == 0
    # Lightning pads the last batches, so they are smaller and equal.
    rows = [rank["rows"] for rank in ranks]
    assert min(rows[0]) < max(rows[0]) and all(other == rows[0] for other in rows)


@pytest.mark.parametrize("processes", PROCESSES)
def test_unequal_batches_keep_processes_in_agreement(processes, records):
    ranks = records("unequal", processes)
    rows = torch.tensor([rank["rows"] for rank in ranks])
    assert (rows.max(dim=0).values > rows.min(dim=0).values).all()
    assert rows[1, -1] < rows[1, 0]  # a smaller last batch, on some processes only
    selector = ranks[0]["selector"]
    replayed = sum(len(union(ranks, step)) for step in range(rows.shape[1]))
    assert int(selector["scorer"]["moments.n"]) == int(rows.sum()) - replayed
    assert selector["counts"]["replayed"] == replayed > 0
    assert selector["counts"]["not_finite"] == 0
    assert selector["counts"]["judged"] == int(selector["threshold"]["n_judged"]) > 100


# -- the same training -------------------------------------------------------------------------


@pytest.mark.parametrize("processes", PROCESSES)
def test_training_equals_one_process_with_the_same_global_batch(processes, records):
    ranks, (one,) = records("whole", processes), records("whole", 1)
    assert_same_training(ranks, one)
    assert all(rank["weights"] == digest(ranks[0]["weights"]) for rank in ranks[1:])


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 4), (4, 2), (2, 1)])
def test_resume_with_another_number_of_processes(before, after, records):
    """What goes on is the same training; 4 to 2 are two nodes of one process."""
    ranks, (one,) = records(f"from{before}", after), records("whole", 1)
    half = len(one["losses"]) // 2
    saved = digest(ranks[0]["loaded"])
    assert all(digest(rank["loaded"]) == saved for rank in ranks)
    assert ranks[0]["loaded"]["queue"]["step"] == half == len(ranks[0]["digests"])
    assert all(rank["digests"] == ranks[0]["digests"] for rank in ranks)
    assert_same_training(ranks, one, first_step=half)
