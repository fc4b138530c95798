"""Two gloo processes: the same detector, shared replays, `exemplar`, short last batches."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import torch
from repository import HELPERS, NO_WIDTH, ROOT

EXEMPLAR = (
    "ood=exemplar",
    "method_kwargs.ood.scorer.exemplars=[3,50,400]",
    "++method_kwargs.ood.scorer.exemplar_every=10",
)


def states_of_two_processes(folder, overrides):
    """Train on two processes; return the state of each one."""
    done = subprocess.run(
        [sys.executable, HELPERS / "ddp_run.py", ROOT / "configs", folder, *overrides],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        if key == "settings":  # names and numbers
            assert value == second[key]
        else:
            torch.testing.assert_close(value, second[key], rtol=0, atol=0, equal_nan=True)


def test_two_processes_agree_and_share_the_replays(tmp_path, registered, tiny):
    ood = ("++method_kwargs.ood.queue.release=0", "++method_kwargs.ood.mix.ratio=0.5")
    overrides = [*tiny, "optimizer.batch_size=8", *ood, *EXEMPLAR]
    first, second = states_of_two_processes(tmp_path, overrides)
    replayed = [state.pop("replayed") for state in (first, second)]
    assert_equal(first, second)
    assert first["counts"]["judged"] > 100
    # 2 epochs of 20 steps feed both processes' 8 rows, less 4 replays each; 3 rows end an epoch
    assert first["rows"] == second["rows"] == [*[8] * 19, 3] * 2
    assert 2 * 40 * 4 <= first["scorer"]["_extra_state"]["n_fed"] <= 2 * 40 * 8
    # Equal numbers on both, at the same steps, and never the same sample in one step.
    drawn = [len(one) for one in replayed[0]]
    assert drawn == [len(one) for one in replayed[1]] and set(drawn) == {0, 4}
    assert drawn.count(4) > 10
    assert not any(set(a) & set(b) for a, b in zip(*replayed))
    # A batch that has no row to spare is trained without a replay; so is it on both.
    assert drawn[19] == drawn[39] == 0 and drawn[38] == 4


LEVERS = [
    "method_kwargs.ood.threshold.percentile=0.5",
    *(
        f"++method_kwargs.ood.{setting}"
        for setting in (
            *("queue.release=0", "queue.max_replays_per_epoch=1.5", "queue.max_replays_per_run=2"),
            *("queue.min_distance=0.05", "threshold.upper_percentile=0.9"),
            *("mix.ratio=0.5", "mix.ratio_end=0.25"),
        )
    ),
    *(
        NO_WIDTH,
        "backbone.name=vit_tiny",
        "+backbone.kwargs.patch_size=16",
        "+backbone.kwargs.img_size=32",
    ),
    *("augmentations.1.num_crops=0", "augmentations.1.crop_size=32"),
]


def test_two_processes_agree_on_fewer_replays_and_on_who_is_turned_away(tmp_path, registered, tiny):
    first, second = states_of_two_processes(tmp_path, [*tiny, *LEVERS])
    replayed = [state.pop("replayed") for state in (first, second)]
    assert_equal(first, second)
    drawn = [len(one) for one in replayed[0]]
    assert drawn == [len(one) for one in replayed[1]] and {0, 1} < {*drawn}
    together = [a + b for a, b in zip(*replayed)]
    assert all(len(set(one)) == len(one) for one in together)
    times = Counter(index for one in together for index in one)
    assert max(times.values()) == 2 and len(times) > 10
    assert first["diverse"]["n_turned_away"] > 10
